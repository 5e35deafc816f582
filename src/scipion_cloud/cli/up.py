"""`scipion-cloud up`: from whatever state a machine is in to a running Scipion Cloud, and back on Ctrl-C."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from scipion_cloud.cli.engine import Engine
from scipion_cloud.cli.progress import Progress
from scipion_cloud.cli.service import Service
from scipion_cloud.cli.setup import home_steps, machine_steps, prepare_database
from scipion_cloud.config import ENV_PREFIX, Config, get_config
from scipion_cloud.provision import apt, home

EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - only compared with
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.option("--demo", is_flag=True, help="Also make a demo project and start My Movie Alignment on it.")
@click.option("--host", help="Address to listen on; 127.0.0.1 unless configured.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on; 8080 unless configured.")
@click.option("--slurm", is_flag=True, help="Run all jobs through a Slurm of its own, on this machine.")
@click.option("--no-setup", is_flag=True, help="Install nothing: only prepare the database and start.")
@click.option(
    "--link", is_flag=True, help="Print a sign-in link even if an administrator has signed in before."
)
def up(demo: bool, host: str | None, port: int | None, slurm: bool, no_setup: bool, link: bool) -> None:
    """Set up what is missing and start Scipion Cloud. Ctrl-C stops everything, jobs and desktops included."""
    config = _configure(host, port)
    progress = Progress()
    # during set-up a signal interrupts at once, which also ends the program that runs then
    with home.locked(config), _on_signal(_interrupt, progress):
        engine = Engine.of(config, slurm=slurm)
        packages = apt.RUNTIME + (apt.SLURM if engine.slurm else ())
        for step in [*([] if no_setup else machine_steps(config, packages)), *home_steps(config)]:
            progress.run(step)
        os.umask(0o077)  # what is made from now on is nobody else's business: database, logs, projects
        with progress.doing("Database and pages") as report:
            prepare_database(config, report)
        _serve(Service(config, progress.say, engine=engine), progress, demo=demo, link=link)


def _serve(service: Service, progress: Progress, *, demo: bool, link: bool) -> None:
    started = False
    try:
        with progress.doing("Slurm, portal and controller" if service.slurm else "Portal and controller"):
            service.start()
        started = True
        page = ""
        if demo:
            with progress.doing("Demo project") as report:
                page = service.manage("demo", report=report)
        progress.total("Ready")
        progress.say(f"\nScipion Cloud is up at {service.config.url}")
        if service.config.host in EVERY_ADDRESS and not service.config.public_url:
            progress.say(
                "Browsers on other machines need its name: set SCIPION_CLOUD_PUBLIC_URL to http://name:port"
            )
        if page:
            progress.say(f"The demo runs at {page}")
        if address := service.manage("admin_link", *([] if link else ["--if-unused"])):
            progress.say(f"Sign in as administrator, once, within half an hour:\n  {address}")
        progress.say("Ctrl-C stops it.\n")
        with progress.status() as show, _on_signal(service.supervisor.request_stop, progress):
            service.supervisor.run(lambda: show(service.describe()))
    finally:
        # stopping ends by itself, and an impatient second Ctrl-C changes nothing
        with _on_signal(lambda: None, progress), progress.doing("Stopping") as report:
            service.stop(report, end_work=started)
    progress.say("Stopped. Your projects are safe in " + str(service.config.home))


def _configure(host: str | None, port: int | None) -> Config:
    """The configuration with the command line's choices, which reach the children as variables."""
    for name, value in (("HOST", host), ("PORT", port)):
        if value is not None:
            os.environ[ENV_PREFIX + name] = str(value)
    for name in ("HOME", "SOFTWARE"):  # a job may run in any folder
        if given := os.environ.get(ENV_PREFIX + name):
            os.environ[ENV_PREFIX + name] = str(Path(given).expanduser().absolute())
    return get_config()


@contextmanager
def _on_signal(reaction: Callable[[], None], progress: Progress) -> Iterator[None]:
    """Call `reaction` on Ctrl-C, on SIGTERM and when the terminal closes."""

    def handler(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            progress.mute()
        reaction()

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    # what a caller such as nohup told us to ignore stays ignored
    heard = [number for number, old in before.items() if old is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def _interrupt() -> None:
    raise KeyboardInterrupt
