"""What a person is told when rsync fails."""

from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from scipion_cloud.broker.transfer import Transfer
from scipion_cloud.errors import InvalidInput, TransferError
from scipion_cloud.sites.model import Batch, Site, SiteKind

Ends = Callable[[int, str], None]


@pytest.fixture
def rsync_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ends:
    """Let rsync end with a code and a text. A script stands for it: a real link breaks as it likes."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def ends(code: int, text: str) -> None:
        (tmp_path / "said").write_text(text)
        script = tmp_path / "rsync"
        script.write_text(f"#!/bin/sh\ncat '{tmp_path}/said' >&2\nexit {code}\n")
        script.chmod(0o755)

    return ends


@pytest.fixture
def transfer(tmp_path: Path) -> Transfer:
    site = Site(
        name="far", title="Far away", kind=SiteKind.COMPUTE, batch=Batch.LOCAL, area=tmp_path / "area"
    )
    return Transfer(site, Event())


@pytest.mark.parametrize(
    ("code", "said", "told"),
    [
        (10, "rsync: [sender] write error: Broken pipe (32)", "the link to Far away broke: .*Broken pipe"),
        (12, "rsync: connection unexpectedly closed", "the link to Far away broke: .*unexpectedly closed"),
        (30, "rsync error: timeout in data send/receive", "the link to Far away broke: no reason is known"),
        (255, "ssh: connect: No route to host", "the link to Far away broke: .*No route"),
        (11, "rsync: write failed: No space left on device (28)", "The disk at Far away is full"),
        (5, "refused", r"rsync to or from Far away failed \(5\): refused"),
    ],
)
def test_each_end_is_told_as_what_it_is(
    rsync_ends: Ends, transfer: Transfer, tmp_path: Path, code: int, said: str, told: str
) -> None:
    rsync_ends(code, said)
    with pytest.raises(TransferError, match=told):
        transfer.send(tmp_path, [], "projects/x", lambda _: None)


def test_a_file_that_vanishes_is_told_by_name(rsync_ends: Ends, transfer: Transfer, tmp_path: Path) -> None:
    rsync_ends(24, 'file has vanished: "/p/a"')
    with pytest.raises(InvalidInput, match=r"gone: /p/a"):
        transfer.send(tmp_path, [], "projects/x", lambda _: None)
