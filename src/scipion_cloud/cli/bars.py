"""A line of progress for copies."""

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

if TYPE_CHECKING:
    from scipion_cloud.sync.progress import Progress as Amounts

_PERIOD = 0.2  # s


@contextlib.contextmanager
def progress_bar(title: str, *, quiet: bool = False) -> Iterator["Amounts"]:
    """Show on standard error how far what is given has come; nothing if `quiet`."""
    from scipion_cloud.sync.progress import Progress as Amounts

    amounts = Amounts()
    if quiet:
        yield amounts
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    files = (TextColumn("{task.fields[files]}"),)
    done = threading.Event()
    with Progress(*columns, *files, console=Console(stderr=True)) as shown:
        task = shown.add_task(title, total=None, files="")
        thread = threading.Thread(target=_keep, args=(shown, task, amounts, done), daemon=True)
        thread.start()
        try:
            yield amounts
        finally:
            done.set()
            thread.join()


def _keep(shown: Progress, task: TaskID, amounts: "Amounts", done: threading.Event) -> None:
    """Show the amounts until `done`, and once more then."""
    last = False
    while not last:
        last = done.wait(_PERIOD)
        files = f"{amounts.files_done} of {amounts.files_total} files" if amounts.files_total else ""
        shown.update(task, completed=amounts.bytes_done, total=amounts.bytes_total or None, files=files)
