"""A PostgreSQL server for the length of a test: Debian's own programs, a Unix socket, a temporary folder.

with postgresql() as url:
    ...  # postgresql:///scipion_cloud?host=/tmp/...&user=postgres, as the setting `database` takes it
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scipion_cloud.errors import SetupError

DATABASE = "scipion_cloud"
SUPERUSER = "postgres"
START_WITHIN = 120.0  # s
# nothing here is worth a disk's confirmation, and no TCP port is opened
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "timezone": "UTC",
}


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a server with one empty database, and give its URL. The server ends with the block or with us.

    PostgreSQL refuses to run as root; for root it runs as Debian's user postgres, or nobody.
    Raises SetupError where PostgreSQL's programs are missing or the server does not start.
    """
    programs = _programs()
    # a socket's path must be short, so not below a test's own long-named folder
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name:
        folder, data = Path(name), Path(name) / "data"
        account = _account()
        if account:
            os.chown(folder, account.pw_uid, account.pw_gid)
        initdb = [
            str(programs / "initdb"),
            "--no-sync",
            "--auth=trust",
            f"--username={SUPERUSER}",
            "--encoding=UTF8",
        ]
        _run([*initdb, "--locale=C.UTF-8", f"--pgdata={data}"], account, folder)
        settings = [word for key, value in SETTINGS.items() for word in ("-c", f"{key}={value}")]
        command = [str(programs / "postgres"), "-D", str(data), "-k", str(folder), *settings]
        log = folder / "server.log"
        with log.open("wb") as output:
            server = subprocess.Popen(_as(account, command), cwd=folder, stdout=output, stderr=output)
        try:
            _await(server, programs, folder, log)
            _run([str(programs / "createdb"), "-h", str(folder), "-U", SUPERUSER, DATABASE], account, folder)
            yield f"postgresql:///{DATABASE}?host={folder}&user={SUPERUSER}"
        finally:
            server.send_signal(signal.SIGINT)  # a fast shutdown: clients are cut off
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.send_signal(signal.SIGQUIT)  # an immediate one
                server.wait()


def _programs() -> Path:
    """The folder of the newest installed server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: float(p.parts[-3]))
    on_path = shutil.which("postgres")
    if found:
        return found[-1].parent
    if on_path and (Path(on_path).parent / "initdb").exists():
        return Path(on_path).parent
    raise SetupError("PostgreSQL's server programs are missing. Run: apt-get install -y postgresql")


def _account() -> pwd.struct_passwd | None:
    """Whom the server runs as: nobody else than us, unless we are root."""
    if os.geteuid():
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _as(account: pwd.struct_passwd | None, command: Sequence[str]) -> list[str]:
    """`command` under that account, and ended (SIGINT) by the kernel when our thread dies."""
    change = []
    if account:
        change = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    return ["setpriv", "--pdeathsig", "INT", *change, "--", *command]


def _run(command: Sequence[str], account: pwd.struct_passwd | None, folder: Path) -> None:
    done = subprocess.run(_as(account, command), cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"{Path(command[0]).name} failed: {done.stderr.strip() or done.stdout.strip()}")


def _await(server: subprocess.Popen[bytes], programs: Path, folder: Path, log: Path) -> None:
    deadline = time.monotonic() + START_WITHIN
    ask = [str(programs / "pg_isready"), "--quiet", "-h", str(folder)]
    while server.poll() is None and time.monotonic() < deadline:
        if subprocess.run(ask, check=False).returncode == 0:
            return
        time.sleep(0.02)
    raise SetupError(f"PostgreSQL did not start: {log.read_text(errors='replace').strip()}")
