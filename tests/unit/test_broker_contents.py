"""What goes to a site: files, links, and nothing from outside."""

import os
from pathlib import Path

import pytest

from scipion_cloud.broker.contents import Contents, collect
from scipion_cloud.errors import InvalidInput


def lay(root: Path, *files: str, **links: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.fsencode(name))
    for at, target in links.items():
        link = root / at.replace("__", "/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    return root


def files(found: Contents, n: int = 0) -> set[str]:
    return set(found.trees[n].files)


def test_a_file_a_folder_and_what_links_lead_to(tmp_path: Path) -> None:
    root = lay(
        tmp_path / "p",
        "Runs/1/a",
        "Runs/1/extra/b",
        "data/m/1.tif",
        "data/m/2.tif",
        Runs__2__movies="../../data/m",
        Runs__2__one="../1/a",
    )
    (root / "Runs" / "1" / "tmp").mkdir()
    found = collect(["Runs/2/movies/1.tif", "Runs/1", "Runs/2/one"], root, "projects/x")
    assert found.folders == ("projects/x/Runs/1/tmp",)
    assert files(found) == {"data/m/1.tif", "Runs/1/a", "Runs/1/extra/b"}
    assert found.links == {
        "projects/x/Runs/2/movies": "../../data/m",
        "projects/x/Runs/2/one": "../1/a",
    }
    assert found.size == sum((root / f).stat().st_size for f in files(found))
    assert Contents.from_json(found.to_json()) == found


def test_absolute_links_into_the_project_become_relative(tmp_path: Path) -> None:
    root = lay(tmp_path / "p", "Runs/1/a")
    lay(root, Runs__2__a=str(root / "Runs" / "1" / "a"), Runs__2__d=str(root / "Runs" / "1"))
    found = collect(["Runs/2", str(root / "Runs" / "1" / "a")], root, "x")
    assert files(found) == {"Runs/1/a"}
    assert found.links == {"x/Runs/2/a": "../1/a", "x/Runs/2/d": "../1"}


def test_a_project_that_is_itself_reached_by_a_link(tmp_path: Path) -> None:
    real = lay(tmp_path / "disk" / "p", "Runs/1/a")
    lay(real, Runs__2__a=str(real / "Runs" / "1" / "a"))
    root = tmp_path / "p"
    root.symlink_to(real)
    found = collect(["Runs/2/a", str(root / "Runs" / "1" / "a")], root, "x")
    assert (files(found), dict(found.links)) == ({"Runs/1/a"}, {"x/Runs/2/a": "../1/a"})


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../secret", "../" * 20 + "etc/passwd"])
def test_a_link_out_of_the_project_is_refused_with_its_name(tmp_path: Path, target: str) -> None:
    lay(tmp_path, "secret")
    root = lay(tmp_path / "p", "Runs/1/ok", Runs__1__bad=target)
    with pytest.raises(InvalidInput, match=r"Runs/1/bad.*outside of the project"):
        collect(["Runs/1"], root, "x")
    with pytest.raises(InvalidInput, match="outside of the project"):
        collect(["/etc/passwd"], root, "x")
    with pytest.raises(InvalidInput, match="outside of the project"):
        collect(["../secret"], root, "x")


def test_a_sibling_whose_name_begins_alike_is_outside(tmp_path: Path) -> None:
    lay(tmp_path / "project", "secret")
    root = lay(tmp_path / "p", l="../project/secret")
    with pytest.raises(InvalidInput, match="outside"):
        collect(["l"], root, "x")


def test_the_source_is_sent_beside_the_project(tmp_path: Path) -> None:
    source = lay(tmp_path / "data" / "source", "raw/1.tif", "raw/2.tif")
    root = lay(tmp_path / "p", "a")
    lay(root, Runs__1__whole=str(source / "raw" / "1.tif"), Runs__1__near="../../../data/source/raw/2.tif")
    found = collect(["Runs/1"], root, "projects/x", [source])
    assert [tree.place for tree in found.trees] == ["projects/x", "projects/x.source"]
    assert files(found, 1) == {"raw/1.tif", "raw/2.tif"}
    assert found.links == {
        "projects/x/Runs/1/whole": "../../../x.source/raw/1.tif",
        "projects/x/Runs/1/near": "../../../x.source/raw/2.tif",
    }


def test_circles_and_links_to_nothing(tmp_path: Path) -> None:
    root = lay(tmp_path / "p", "Runs/1/a", Runs__1__nothing="never/made", Runs__2__x="y", Runs__2__y="x")
    assert collect(["Runs/1"], root, "x").links == {"x/Runs/1/nothing": "never/made"}
    with pytest.raises(InvalidInput, match="circles"):
        collect(["Runs/2/x"], root, "x")
    with pytest.raises(InvalidInput, match="'Runs/1/b' is needed, but it is not there"):
        collect(["Runs/1/b"], root, "x")


def test_names_of_any_bytes(tmp_path: Path) -> None:
    root = tmp_path / "p"
    names = [
        os.fsdecode(n) for n in (b"-rf", b"new\nline", b"\xff\xfe", b"#c", b" a ", b"*[x]", b"d/:host:x")
    ]
    lay(root, *names)
    found = collect([f"./{n}" for n in names], root, "x")
    assert files(found) == set(names)
    assert Contents.from_json(found.to_json()) == found
