"""What aligning movies takes, told from a header: for the choice of a site and for the batch system."""

from scipion_cloud.tools.movies.info import MovieInfo

_PIXEL = 4  # bytes: RELION computes and writes 4-byte numbers
_COPIES = 3  # of all frames that RELION holds at a time
SCIPION_GB = 1.0  # GiB for Scipion itself
_PROGRAM_GB = 0.25  # GiB for a program beside its frames
_PIXELS_PER_SECOND = 10e6  # of all frames, by one thread; measured with RELION 3.1
_START = 10.0  # s until Scipion has begun


def memory_gb(movie: MovieInfo) -> float:
    """What RELION takes for a movie, with Scipion itself, GiB."""
    return SCIPION_GB + _frames_gb(movie)


def program_gb(movie: MovieInfo) -> float:
    """What RELION takes for a movie by itself, GiB."""
    return _PROGRAM_GB + _frames_gb(movie)


def _frames_gb(movie: MovieInfo) -> float:
    return _COPIES * _PIXEL * movie.nx * movie.ny * movie.frames / 2**30


def seconds(movie: MovieInfo, count: int, threads: int) -> float:
    """About how long `count` such movies take, s."""
    pixels = float(movie.nx * movie.ny * movie.frames)
    return _START + count * pixels / (_PIXELS_PER_SECOND * max(1, threads))


def bytes_out(movie: MovieInfo, count: int, binning: float = 1.0, *, both: bool = False) -> int:
    """What their micrographs take on disk; `both` with and without dose weighting."""
    return int(count * _PIXEL * movie.nx * movie.ny / binning**2) * (2 if both else 1)
