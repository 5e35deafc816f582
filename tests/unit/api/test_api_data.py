"""A project's data: announced, counted, listed, deleted."""

import os
from typing import Any

from scipion_cloud.records.models import Project


def test_files_are_announced_counted_and_forgotten(owner: Any, project: Project) -> None:
    (project.data / "here.mrc").write_bytes(b"12345")
    path = f"/projects/{project.id}/uploads"
    files = [
        {"path": "day 1/a.tiff", "size": 10},
        {"path": "here.mrc", "size": 5},
        {"path": "../x.mrc", "size": 1},
        {"path": "here.mrc/x", "size": 1},
    ]
    plan = owner.json("POST", f"{path}/plan", {"files": files})
    assert plan["tus"] == f"/projects/{project.id}/tus"
    assert [f["state"] for f in plan["files"]] == ["missing", "present", "refused", "refused"]
    assert plan["files"][0]["id"]
    assert all(f["reason"] for f in plan["files"][2:])
    done = owner.json("GET", path)
    assert (done["present"], done["announced"], done["bytes"], done["bytes_total"]) == (1, 2, 5, 15)
    assert done["missing"] == ["day 1/a.tiff"]
    owner.json("DELETE", path, status=204)
    assert owner.json("GET", path)["announced"] == 1


def test_a_negative_size_is_refused_by_field(owner: Any, project: Project) -> None:
    body = {"files": [{"path": "a", "size": -1}]}
    answer = owner.json("POST", f"/projects/{project.id}/uploads/plan", body, 422)
    assert list(answer["errors"]) == ["files.0.size"]


def test_files_are_listed_with_their_kind_and_deleted(owner: Any, project: Project) -> None:
    for name in ("a.tiff", "gain.mrc", "notes.txt"):
        (project.data / name).write_text(name)
    (project.data / "link.mrc").symlink_to("/etc/passwd")
    path = f"/projects/{project.id}/data"
    listed = owner.json("GET", path)
    assert [(f["path"], f["kind"], f["size"]) for f in listed] == [
        ("a.tiff", "movie", 6),
        ("gain.mrc", "gain", 8),
        ("notes.txt", "other", 9),
    ]
    owner.json("DELETE", f"{path}?path=a.tiff", status=204)
    owner.json("DELETE", f"{path}?path=a.tiff", status=404)
    for outside in ("../project.sqlite", "/etc/passwd", ""):
        assert owner("DELETE", f"{path}?path={outside}").status_code in (404, 422)
    assert [f["path"] for f in owner.json("GET", path)] == ["gain.mrc", "notes.txt"]


def test_names_that_are_not_utf8_do_not_break_the_list(owner: Any, project: Project) -> None:
    with open(os.fsencode(project.data) + b"/bad \xff.mrc", "wb"):  # noqa: PTH123 - bytes
        pass
    (listed,) = owner.json("GET", f"/projects/{project.id}/data")
    assert listed["path"].startswith("bad ")
