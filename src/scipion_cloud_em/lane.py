"""A job that takes movies off a run's hands: the next one that nobody has, run its command, say how it ended.

    python -I -S lane.py FOLDER NUMBER

FOLDER is the same for all lanes of a run. In it there is, or will be:

    plan.json            {"movies": [...]}, what there is to run, and where (see `recording`)
    NAME.lane            whose the movie is: a link to the lane's NUMBER, which only one can make
    NAME.out, NAME.err   what its command wrote
    NAME.json            {"code", "seconds"} of the command, when it has ended
    NAME.used            the run has begun to take this over

Started again, as after the loss of its machine, it goes on with the movie that it had. Standard library only:
it begins in milliseconds, on any node.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Work until there is nothing left to take."""
    folder, number = Path(sys.argv[1]), sys.argv[2]
    for movie in json.loads((folder / "plan.json").read_text())["movies"]:
        if take(folder, movie["name"], number):
            run(folder, movie)


def take(folder: Path, name: str, number: str) -> bool:
    """Whether the movie is ours to run now: nobody had it, or we had it when we were lost."""
    link = folder / f"{name}.lane"
    try:
        link.symlink_to(number)
    except FileExistsError:  # NFS says so as well where it has lost its answer to us
        if os.readlink(link) != number:  # noqa: PTH115 - the text
            return False
    return not (folder / f"{name}.json").exists()


def make(place: Path, movie: dict) -> None:
    """Make the folder in which a movie's command runs."""
    for name in ("", *movie["folders"]):
        (place / name).mkdir(parents=True, exist_ok=True)
    for name, text in movie["files"].items():
        (place / name).write_text(text)
    for name, target in movie["links"].items():
        (place / name).unlink(missing_ok=True)
        (place / name).symlink_to(target)


def run(folder: Path, movie: dict) -> None:
    """Run a movie's command as Scipion would, and write down how it ended, in one piece."""
    name, command, place = movie["name"], movie["command"], Path(movie["folder"])
    began = time.monotonic()
    make(place, movie)
    print(f"{name}: {command}", flush=True)
    with (folder / f"{name}.out").open("wb") as out, (folder / f"{name}.err").open("wb") as err:
        code = subprocess.run(  # noqa: S602 - Scipion builds command lines
            command, shell=True, check=False, cwd=place, stdout=out, stderr=err
        ).returncode
    new = folder / f"{name}.new"
    with new.open("w") as file:
        json.dump({"code": code, "seconds": round(time.monotonic() - began, 3)}, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / f"{name}.json")


if __name__ == "__main__":
    main()
