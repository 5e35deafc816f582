"""Announcements, progress and the list of files, on a real data folder and database."""

import os
import uuid
from pathlib import Path

import pytest

from scipion_cloud.config import get_config
from scipion_cloud.errors import Conflict, InvalidInput, NotFound
from scipion_cloud.portal.uploads import plan
from scipion_cloud.portal.uploads.files import Kind, delete_file, kind_of, list_data
from scipion_cloud.portal.uploads.folder import DataFolder, NoSpace
from scipion_cloud.portal.uploads.lock import locked
from scipion_cloud.portal.uploads.plan import State
from scipion_cloud.records.models import Project, Upload, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner() -> User:
    return User.objects.create_user("owner", "owner@example.org")


@pytest.fixture
def project(home: Path, owner: User) -> Project:
    project = Project.objects.create(name="Ribosomes", owner=owner)
    project.path.mkdir(parents=True)
    return project


def put(project: Project, path: str, content: bytes) -> None:
    file = project.data / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def put_part(project: Project, upload: uuid.UUID | None, content: bytes) -> None:
    assert upload is not None
    put(project, f".parts/{upload.hex}", content)


def test_what_is_new_known_begun_and_refused(project: Project, owner: User) -> None:
    put(project, "here.mrc", b"abc")
    put(project, "other.mrc", b"abc")
    (begun,) = plan.announce(project, owner, [("begun.mrc", 10)])
    put_part(project, begun.id, b"1234")
    answers = plan.announce(
        project,
        owner,
        [("here.mrc", 3), ("other.mrc", 4), ("begun.mrc", 10), ("new.mrc", 5), ("../x", 1), ("new.mrc", 5)],
    )
    states = [a.state for a in answers]
    assert states == ["present", "refused", "partial", "missing", "refused", "refused"]
    assert answers[2].id == begun.id
    assert answers[2].offset == 4
    assert "Nothing is overwritten" in answers[1].reason
    assert "twice" in answers[5].reason
    assert Upload.objects.get(path="here.mrc").finished is not None


def test_a_changed_file_is_not_mixed_with_what_came_of_the_old_one(project: Project, owner: User) -> None:
    (old,) = plan.announce(project, owner, [("a.mrc", 10)])
    put_part(project, old.id, b"1234")
    (new,) = plan.announce(project, owner, [("a.mrc", 12)])
    assert new.state == State.REFUSED
    assert plan.forget(project, ["a.mrc"]) == 1
    (again,) = plan.announce(project, owner, [("a.mrc", 12)])
    assert again.state == State.MISSING


def test_a_file_deleted_since_is_missing_again(project: Project, owner: User) -> None:
    put(project, "a.mrc", b"abc")
    assert plan.announce(project, owner, [("a.mrc", 3)])[0].state == State.PRESENT
    (project.data / "a.mrc").unlink()
    assert plan.progress(project).missing == ["a.mrc"]
    assert plan.announce(project, owner, [("a.mrc", 3)])[0].state == State.MISSING
    assert Upload.objects.get().finished is None


def test_folders_files_and_links_in_the_way(project: Project, owner: User, tmp_path: Path) -> None:
    put(project, "folder/inner.mrc", b"x")
    put(project, "file", b"x")
    (project.data / "link").symlink_to(tmp_path)
    answers = plan.announce(
        project, owner, [("folder", 1), ("file/inner.mrc", 1), ("link/x", 1), ("link", 1)]
    )
    assert [a.state for a in answers] == [State.REFUSED] * 4
    assert "is a folder" in answers[0].reason
    assert "link" in answers[2].reason


def test_progress_counts_files_and_bytes_on_disk(project: Project, owner: User) -> None:
    names = [f"m{i}.mrc" for i in range(5)]
    answers = plan.announce(project, owner, [(name, 10) for name in names])
    put(project, "m0.mrc", b"x" * 10)
    put_part(project, answers[1].id, b"x" * 4)
    now = plan.progress(project, show_missing=2)
    assert (now.present, now.announced, now.bytes, now.bytes_total) == (1, 5, 14, 50)
    assert now.missing == ["m1.mrc", "m2.mrc"]
    assert now.percent == 28


def test_ten_thousand_names_at_most(project: Project, owner: User) -> None:
    plan.announce(project, owner, [(f"grid/movie_{i:05}.tif", 1000 + i) for i in range(3000)])
    assert plan.progress(project).announced == 3000
    with pytest.raises(InvalidInput, match="at most 10000"):
        plan.announce(project, owner, [("x", 1)] * 10_001)


def test_what_the_disk_cannot_take_is_refused_before_it_starts(project: Project, owner: User) -> None:
    size = int(get_config().upload_max_gb * 2**30)
    with pytest.raises(NoSpace, match="are missing"):
        plan.announce(project, owner, [(f"{i}.mrc", size) for i in range(1000)])
    assert not Upload.objects.exists()
    assert plan.announce(project, owner, [("a.mrc", size + 1)])[0].state == State.REFUSED


def test_forget_leaves_what_is_whole_and_what_is_being_sent(project: Project, owner: User) -> None:
    put(project, "whole.mrc", b"abc")
    plan.announce(project, owner, [("whole.mrc", 3), ("gone.mrc", 3)])
    (busy,) = plan.announce(project, owner, [("busy.mrc", 3)])
    assert busy.id is not None
    with DataFolder(project) as folder, locked(folder, busy.id):
        assert plan.forget(project) == 1
    assert set(Upload.objects.values_list("path", flat=True)) == {"whole.mrc", "busy.mrc"}
    assert (project.data / "whole.mrc").exists()


def test_kinds() -> None:
    assert kind_of("a/b.TIFF") == Kind.MOVIE
    assert kind_of("x.eer") == Kind.MOVIE
    assert kind_of("grid/K3_Gain_ref.mrc") == Kind.GAIN
    assert kind_of("gain/movie.mrc") == Kind.MOVIE
    assert kind_of("x.gain") == Kind.GAIN
    assert kind_of("notes.txt") == Kind.OTHER


def test_the_list_survives_odd_names_and_leaves_links_out(project: Project, tmp_path: Path) -> None:
    put(project, "b.mrc", b"12")
    put(project, "new\nline.mrc", b"1")
    put(project, ".parts/00", b"1")
    raw = os.fsencode(project.data) + b"/latin-\xe9.mrc"
    Path(os.fsdecode(raw)).write_bytes(b"123")
    (tmp_path / "secret").write_text("secret")
    (project.data / "link.mrc").symlink_to(tmp_path / "secret")
    (project.data / "folder").symlink_to(tmp_path)
    os.mkfifo(project.data / "pipe.mrc")
    files = list_data(project)
    assert [f.name for f in files] == ["b.mrc", "latin-\\xe9.mrc", "new\\nline.mrc"]
    assert files[0].modified.tzinfo is not None
    assert [f.size for f in files] == [2, 3, 1]


def test_delete_takes_the_shown_name_and_never_leaves_the_folder(project: Project, tmp_path: Path) -> None:
    raw = Path(os.fsdecode(os.fsencode(tmp_path) + b"/x"))
    raw.write_text("outside")
    put(project, "a/b.mrc", b"1")
    put(project, "new\nline.mrc", b"1")
    (project.data / "out").symlink_to(tmp_path)
    (project.data / "link").symlink_to(tmp_path / "x")
    for path in ("../x", "out/x", "out/../x", "/etc/passwd", ".parts/x", "", "a", ".."):
        with pytest.raises((InvalidInput, Conflict, NotFound)):
            delete_file(project, path)
    assert raw.exists()
    delete_file(project, "a/b.mrc")
    delete_file(project, "new\\nline.mrc")
    delete_file(project, "link")
    assert [f.name for f in list_data(project)] == []
    assert raw.exists()


def test_ten_thousand_files_are_listed(project: Project) -> None:
    (project.data / "grid").mkdir(parents=True)
    for i in range(10_000):
        (project.data / "grid" / f"{i:05}.tif").touch()
    assert len(list_data(project)) == 10_000


def test_a_deep_tree_does_not_break_the_list(project: Project) -> None:
    here = project.data
    for _ in range(200):
        here = here / "d"
    here.mkdir(parents=True)
    (here / "x.mrc").touch()
    assert list_data(project) == []
