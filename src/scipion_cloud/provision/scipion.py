"""The Scipion environment: Python packages, our plugin, configuration, and RELION where Scipion looks."""

import fcntl
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.broker.queues import hosts_conf
from scipion_cloud.config import Config
from scipion_cloud.errors import ScipionCloudError, SetupError
from scipion_cloud.provision.process import Report, stream
from scipion_cloud.provision.programs import find_uv
from scipion_cloud.provision.steps import Stamp, digest_of
from scipion_cloud.tools.bridge import call
from scipion_cloud.tools.catalogue import forms_file, protocol_classes
from scipion_cloud.tools.environment import scipion_environ, scipion_settings

_REQUIREMENTS = Path(__file__).with_name("scipion-requirements.txt")
_PLUGIN = Path(__file__).parents[2] / "scipion_cloud_em"
_RELION = "relion_run_motioncorr"
_FORM_TIMEOUT = 300  # s; the first import compiles every module


@dataclass(frozen=True)
class ScipionCheck:
    """What `doctor` tells about Scipion: versions of what is there, and problems with their remedies."""

    versions: dict[str, str]
    problems: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """True if runs and desktops can start."""
        return not self.problems


@dataclass(frozen=True)
class _Stage:
    title: str
    digest: str
    done: Callable[[], bool]
    work: Callable[[], None]


def install_scipion(software: Path, report: Report) -> None:
    """Make or mend the Scipion environment in `software`; returns at once where nothing has changed.

    Each stage leaves a stamp when it is complete, so that an interrupted installation goes on from there.
    Raises SetupError with what to do.
    """
    software.mkdir(parents=True, exist_ok=True)
    installer = _Installer(software, report)
    if installer.missing():
        with _one_at_a_time(software, report):
            for stage in installer.missing():  # asked again: another may have done it meanwhile
                report(stage.title)
                stage.work()
                installer.stamp(stage).write()


def scipion_is_current(software: Path) -> bool:
    """True if `install_scipion` would have nothing to do."""
    return not _Installer(software, lambda _: None).missing()


def check_scipion(software: Path) -> ScipionCheck:
    """Look at the installation in `software` without changing it; takes a few seconds."""
    versions: dict[str, str] = {}
    problems: list[str] = []
    for stage in _Installer(software, lambda _: None).missing():
        problems.append(f"Not done or out of date: {stage.title}. Run `scipion-cloud up`.")
    relion = shutil.which(_RELION)
    if relion is None:
        problems.append("RELION is missing. Run `apt install relion`, then `scipion-cloud up`.")
    else:
        versions["RELION"] = _first_line([relion, "--version"]) or "unknown"
        if " 3.1" not in versions["RELION"]:
            problems.append(f"Scipion's plugin needs RELION 3.1, this is: {versions['RELION']}.")
    if not problems:
        try:
            answer = call("versions", timeout=_FORM_TIMEOUT, config=Config(software=software))
            versions |= {str(name): str(version) for name, version in answer.items()}
        except ScipionCloudError as e:
            problems.append(f"Scipion does not start: {e}")
    return ScipionCheck(versions, tuple(problems))


class _Installer:
    """The stages of one installation, in order; each depends on those before it."""

    def __init__(self, software: Path, report: Report) -> None:
        self.software = software
        self.report = report
        self.config = Config(software=software)
        self.home = self.config.scipion_home
        self.env = self.config.scipion_python.parent.parent

    def stages(self) -> list[_Stage]:
        """All stages. A stage is due again when its own inputs or those of an earlier one changed."""
        packages = digest_of([_REQUIREMENTS, str(self.software)])
        plugin = digest_of([packages, *sorted(p for p in _PLUGIN.rglob("*") if _is_source(p))])
        settings = digest_of(
            [hosts_conf(), *map("=".join, scipion_settings(self.software).items()), *_relion_programs()]
        )
        forms = digest_of([plugin, settings, *protocol_classes()])
        links = self.home / "software" / "em" / "relion-3.1" / "bin" / _RELION
        installed = self.config.scipion_python.exists
        return [
            _Stage("Installing Scipion's Python packages", packages, installed, self._packages),
            _Stage("Installing the Scipion Cloud plugin", plugin, installed, self._plugin),
            _Stage("Writing Scipion's configuration", settings, links.exists, self._settings),
            _Stage(
                "Reading the forms of Scipion's protocols", forms, forms_file(self.config).exists, self._forms
            ),
        ]

    def missing(self) -> list[_Stage]:
        """The stages that are not complete."""
        return [s for s in self.stages() if not (s.done() and self.stamp(s).matches())]

    def stamp(self, stage: _Stage) -> Stamp:
        """Where it is recorded that `stage` is complete."""
        name = stage.work.__name__.strip("_")
        folder = self.home if name in ("settings", "forms") else self.env
        return Stamp(folder / f".{name}.stamp", stage.digest)

    def _packages(self) -> None:
        uv = find_uv()
        venv: list[str | Path] = [uv, "venv", "--seed", "--clear", "--python", find_python(), self.env]
        stream(venv, self.report, what="Making the Scipion environment")
        self._pip("-r", _REQUIREMENTS)

    def _plugin(self) -> None:
        self._pip("--no-deps", "--reinstall", _PLUGIN)

    def _pip(self, *arguments: str | Path) -> None:
        python: list[str | Path] = ["--python", self.config.scipion_python]
        # Compiled at once: otherwise the first run or desktop would spend that time.
        command: list[str | Path] = [find_uv(), "pip", "install", *python, "--compile-bytecode", *arguments]
        stream(command, self.report, what="Installing Scipion's Python packages")

    def _settings(self) -> None:
        if not shutil.which(_RELION):
            raise SetupError("RELION is missing. Run `apt install relion`, then `scipion-cloud up` again.")
        relion = Path(scipion_settings(self.software)["RELION_HOME"])
        shutil.rmtree(relion, ignore_errors=True)
        (relion / "lib").mkdir(parents=True)
        (relion / "bin").mkdir()
        for program in _relion_programs():
            (relion / "bin" / Path(program).name).symlink_to(program)
        # RELION has ghostscript draw a PDF for every movie, which Scipion throws away; without
        # ghostscript it fills the log with errors instead.
        (relion / "bin" / "gs").symlink_to("/bin/true")
        conf = self.home / "config"
        conf.mkdir(parents=True, exist_ok=True)
        lines = [f"{k} = {v.replace('%', '%%')}" for k, v in scipion_settings(self.software).items()]
        _write(conf / "scipion.conf", "\n".join(["[PYWORKFLOW]", *lines, ""]))
        _write(conf / "hosts.conf", hosts_conf())
        _write(conf / "protocols.conf", "[PROTOCOLS]\n")  # the views come from the plugins
        (self.home / "cache" / "matplotlib").mkdir(parents=True, exist_ok=True)

    def _forms(self) -> None:
        forms = {
            name: call("describe_protocol", timeout=_FORM_TIMEOUT, config=self.config, name=name)
            for name in protocol_classes()
        }
        _write(forms_file(self.config), json.dumps(forms, indent=1))
        # Matplotlib lists the machine's fonts at its first import: seconds that no run should pay.
        warm: list[str | Path] = [self.config.scipion_python, "-c", "import matplotlib.font_manager"]
        stream(
            warm, self.report, what="Listing fonts", env=scipion_environ(self.config, self.config.projects)
        )


def find_python() -> str:
    """Path of a Python 3.11 with tkinter, which Scipion needs even without a screen. Raises SetupError."""
    probe = "import sys, tkinter; sys.exit(sys.version_info[:2] != (3, 11))"
    for name in ("/usr/bin/python3.11", "python3.11", "python3"):
        found = shutil.which(name)
        if found and subprocess.run([found, "-c", probe], capture_output=True, check=False).returncode == 0:
            return found
    raise SetupError("Scipion needs Python 3.11 with tkinter. Run `apt install python3.11 python3-tk`.")


def _relion_programs() -> list[str]:
    """Absolute paths of the RELION programs of this machine, sorted."""
    runner = shutil.which(_RELION)
    return sorted(str(p) for p in Path(runner).parent.glob("relion_*")) if runner else []


def _is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next(iter(done.stdout.splitlines()), "").strip()


def _write(file: Path, text: str) -> None:
    """Replace a file at once: a reader sees the old text or the new one."""
    new = file.with_name(file.name + ".new")
    new.write_text(text)
    new.replace(file)


@contextmanager
def _one_at_a_time(software: Path, report: Report) -> Iterator[None]:
    with (software / ".scipion.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("Another installation is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
