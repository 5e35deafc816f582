"""`./scipion-cloud` in a copy of the checkout whose path has a space, with the real uv."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scipion_cloud.provision.programs import find_uv

ROOT = Path(__file__).parents[2]
PARTS = ["pyproject.toml", "uv.lock", "README.md", "LICENSE", "scipion-cloud", "src/scipion_cloud"]


def copy(where: Path) -> Path:
    """The parts of the checkout that the launcher needs."""
    for part in PARTS:
        target = where / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "node_modules", "data")
            shutil.copytree(ROOT / part, target, ignore=ignored)
        else:
            shutil.copy2(ROOT / part, target)
    return where


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy(tmp_path_factory.mktemp("launcher") / "my checkout")


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A new user's variables, with the packages that uv has fetched before."""
    uv = str(find_uv())
    cache = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SCIPION", "VIRTUAL_ENV", "XDG", "UV"))}
    return {**kept, "HOME": str(tmp_path_factory.mktemp("user")), "UV": uv, "UV_CACHE_DIR": cache}


def call(
    launcher: Path, *arguments: str, environ: dict[str, str], cwd: Path = Path("/")
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [launcher, *arguments], env=environ, cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )


def test_first_start_prepares_and_the_second_is_quick(
    checkout: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    link = tmp_path / "a link"
    link.symlink_to(checkout / "scipion-cloud")
    first = call(link, "--version", environ=environ, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("scipion-cloud, version ")
    assert "preparing the Python environment" in first.stderr
    assert not (checkout / ".venv/bin/pytest").exists()

    offline = {**environ, "UV_OFFLINE": "1", "UV": "/nonexistent/uv", "HTTPS_PROXY": "http://127.0.0.1:9"}
    second = call(link, "--version", environ=offline, cwd=tmp_path)
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")


def test_the_launcher_alone_costs_little(checkout: Path, environ: dict[str, str]) -> None:
    call(checkout / "scipion-cloud", "--version", environ=environ)
    trace = ["strace", "--follow-forks", "--trace=execve", "--signal=none", "--status=successful"]
    done = subprocess.run(
        [*trace, checkout / "scipion-cloud", "--version"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    started = [line for line in done.stderr.splitlines() if "execve(" in line]
    program = next(n for n, line in enumerate(started) if ".venv/bin/scipion-cloud" in line)
    assert program <= 6, started  # bash, and what finding itself and a checksum take


def test_a_changed_lock_is_noticed_and_an_interrupted_preparation_repeated(
    checkout: Path, environ: dict[str, str]
) -> None:
    launcher = checkout / "scipion-cloud"
    call(launcher, "--version", environ=environ)
    with (checkout / "pyproject.toml").open("a") as file:
        file.write("\n# changed\n")
    failing = call(
        launcher,
        "--version",
        environ={
            **environ,
            "UV": "/bin/false",
            "PATH": "/usr/bin:/bin",
            "PIP_INDEX_URL": "http://127.0.0.1:9/",
            "PIP_RETRIES": "0",
        },
    )
    assert failing.returncode == 1
    assert "uv could not be fetched" in failing.stderr
    again = call(launcher, "--version", environ=environ)
    assert again.returncode == 0
    assert "preparing" in again.stderr
    assert call(launcher, "--version", environ=environ).stderr == ""


def test_two_at_once_prepare_once_after_the_other(checkout: Path, environ: dict[str, str]) -> None:
    (checkout / ".venv/.scipion-cloud").unlink(missing_ok=True)
    command = [checkout / "scipion-cloud", "--version"]
    both = [
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("preparing the Python environment" in stderr for _, stderr in said) == 1


def test_a_moved_checkout_works_with_all_its_programs(checkout: Path, environ: dict[str, str]) -> None:
    call(checkout / "scipion-cloud", "--version", environ=environ)
    moved = checkout.with_name("elsewhere")
    checkout.rename(moved)
    try:
        assert call(moved / "scipion-cloud", "--version", environ=environ).returncode == 0
        admin = subprocess.run(
            [moved / ".venv/bin/django-admin", "--version"], capture_output=True, check=False
        )
        assert admin.returncode == 0
    finally:
        moved.rename(checkout)


def test_a_folder_that_cannot_be_written_is_said_plainly(tmp_path: Path, environ: dict[str, str]) -> None:
    checkout = copy(tmp_path / "theirs")
    if os.geteuid() == 0:  # root may write anywhere, so another has to try
        tmp_path.chmod(0o755)
        for folder in [*tmp_path.parents][:3]:
            folder.chmod(folder.stat().st_mode | 0o011)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    else:
        checkout.chmod(0o555)
        command = []
    done = subprocess.run(
        [*command, checkout / "scipion-cloud", "up"], env=environ, capture_output=True, text=True, check=False
    )
    checkout.chmod(0o755)
    assert done.returncode == 1
    assert "cannot be written. Make your own checkout, or change its owner." in done.stderr
