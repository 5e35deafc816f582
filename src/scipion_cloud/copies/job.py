"""`python -m scipion_cloud.copies.job FOLDER`: one copy, as its folder's order has it.

Ends with 0 when the new project is whole and on the disk, ready to be given its name; with 1 when it cannot
be, and the report tells why. Killed, it may be started again.
"""

import errno
import os
import resource
import shutil
import sys
from pathlib import Path
from typing import BinaryIO

from scipion_cloud.copies.order import FromArchive, FromFolder, FromStorage, Order
from scipion_cloud.copies.rehome import rehome
from scipion_cloud.copies.report import Report
from scipion_cloud.copies.stored import copy_generation
from scipion_cloud.copies.tree import copy_tree
from scipion_cloud.copies.unpack import unpack
from scipion_cloud.errors import InvalidInput, NotFound, ScipionCloudError
from scipion_cloud.storage import linux
from scipion_cloud.sync import paths

_MEMORY = 4 << 30  # bytes; a hostile archive gets no more


def main(folder: Path) -> int:
    """Do the job whose order is in `folder`; the exit code. Limits the memory of this process for good."""
    order = Order.read(folder)
    if order.ready.exists():
        return 0
    with Report(folder) as report:
        try:
            _make(order, folder, report)
        except ScipionCloudError as e:
            report.message = str(e)
        except OSError as e:
            if e.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            report.message = f"This machine's disk does not take the project: {e.strerror}. Nothing was kept."
        except MemoryError:
            report.message = "The archive asks for more memory than it may have: it is damaged or hostile."
        else:
            return 0
    clear(order.parts)
    clear(folder / "copy")
    return 1


def clear(folder: Path) -> None:
    """Remove a folder with all in it, whatever its modes are."""
    if not folder.exists():
        return
    folder.chmod(0o700)
    for above, names, _ in os.walk(folder):
        for name in names:
            path = os.path.join(above, name)  # noqa: PTH118 - names of any bytes, many of them
            if not os.path.islink(path):  # noqa: PTH114
                os.chmod(path, 0o700)  # noqa: PTH101
    shutil.rmtree(folder)


def _make(order: Order, folder: Path, report: Report) -> None:
    what, parts = order.what, order.parts
    made = parts
    if isinstance(what, FromStorage):
        copy_generation(what, parts, folder / "copy", report, new_dataset=order.source)
    else:
        clear(parts)
        if isinstance(what, FromFolder):
            dataset = Path(what.source) if what.source else None
            copy_tree(Path(what.folder), parts, report, dataset=dataset, new_dataset=order.source)
        else:
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
            with _archive(what) as file:
                made = unpack(file, parts, report)
    if not isinstance(what, FromArchive):
        rehome(made, Path(what.folder), order.target, report)
    made.chmod(made.stat().st_mode & 0o777 | 0o700)
    fd = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
    try:
        linux.sync_file_system(fd, str(order.target))
    finally:
        os.close(fd)
    made.rename(order.ready)
    if made != parts:
        _tell_rest(parts, report)
        clear(parts)


def _archive(what: FromArchive) -> BinaryIO:
    """The archive, open; no symlink is followed to it."""
    try:
        root = os.open(what.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with paths.parent(root, os.fsencode(what.path)) as (folder, name):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(root)
    except OSError as e:
        raise NotFound(f"The archive cannot be read ({e.strerror}). Is its project still open?") from e
    file = os.fdopen(fd, "rb")
    if not os.path.isfile(fd):  # noqa: PTH113 - a descriptor
        file.close()
        raise InvalidInput("The archive is not a file any more.")
    return file


def _tell_rest(parts: Path, report: Report) -> None:
    """What lay beside the project in the archive."""
    left = [Path(above) / name for above, _, names in os.walk(parts) for name in names]
    for path in left[:100]:
        report.problem(os.fsencode(path.relative_to(parts)), "lay outside of the project's folder; left out.")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
