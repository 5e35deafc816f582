"""How a process that moves much data stays small."""

import ctypes

MMAP_THRESHOLD = -3  # of mallopt; see mallopt(3)
LARGE = 2**20  # bytes


def give_back_large_blocks() -> None:
    """Have blocks of a MiB and more go back to the system when they are freed.

    For the whole process, at its start. glibc would come to keep blocks of up to 32 MiB, for each thread:
    eight uploads to S3 at a time were measured to need 290 MB instead of 110 MB, and 140 MB instead of 45 MB
    afterwards. It does nothing where the C library is another one.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(MMAP_THRESHOLD, LARGE)
