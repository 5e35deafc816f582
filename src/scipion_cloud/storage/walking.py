"""Walking a tree folder by folder, a few folders at a time."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from scipion_cloud.storage.base import Kind, Stat

FOLDERS_AT_ONCE = 8


def walk_folders(children: Callable[[str], Iterator[Stat]], folder: str) -> Iterator[Stat]:
    """All files and symlinks below `folder`, in any order, by asking `children` for each folder once."""

    def look(key: str) -> list[Stat]:
        return list(children(key))

    pool = ThreadPoolExecutor(FOLDERS_AT_ONCE, thread_name_prefix="walk")
    try:
        asked: set[Future[list[Stat]]] = {pool.submit(look, folder)}
        while asked:
            done, asked = wait(asked, return_when=FIRST_COMPLETED)
            for future in done:
                for stat in future.result():
                    if stat.kind is Kind.FOLDER:
                        asked.add(pool.submit(look, stat.key))
                    else:
                        yield stat
    finally:
        pool.shutdown(cancel_futures=True)
