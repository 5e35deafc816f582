"""What the docs say is true: every block of code runs or is checked, every link leads somewhere."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from pages import PAGES, ROOT, Block, anchors, blocks, command_lines, inline_code, links, prose

from scipion_cloud.cli import main
from scipion_cloud.config import Config
from scipion_cloud.jobs import Limits, LocalBackend
from scipion_cloud.sites.reading import parse_sites
from scipion_cloud.testing.memory import MemoryStorage
from scipion_cloud.tools import catalogue

PROGRAMS = ("scipion-cloud", "./scipion-cloud")


def check_console(block: Block, folder: Path) -> None:
    """Commands of ours; which are run, those of the API's page are, by test_session."""
    assert command_lines(block)
    for line in command_lines(block):
        words = shlex.split(line)
        assert words[0] in PROGRAMS, f"{block}: {line} is not a command of ours"
        parse(words[1:], whole=True)


def parse(words: list[str], *, whole: bool) -> None:
    """Raises click.UsageError for commands, options and values that there are not.

    `whole`: arguments that the command needs must be there too.
    """
    command: click.Command = main
    context = click.Context(main, info_name="scipion-cloud")
    while isinstance(command, click.Group):
        if not words:
            assert not whole, "the command is not complete"
            return
        found = command.get_command(context, words[0])
        if found is None:
            raise click.UsageError(f"No such command '{words[0]}'.")
        command, words = found, words[1:]
        context = click.Context(command, context, command.name, **command.context_settings)
    values, left, _ = command.make_parser(context).parse_args(list(words))
    if left and not context.allow_extra_args:
        raise click.UsageError(f"{left} is too much.")
    for param in command.params:
        if whole and param.required and param.value_is_missing(values.get(param.name or "")):
            raise click.UsageError(f"{param.name} is missing.")


def check_bash(block: Block, folder: Path) -> None:
    """A script for the shell: its grammar here, its work in test_session."""
    assert block.page == "docs/api.md", f"{block}: nobody runs this script"
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)


def check_toml(block: Block, folder: Path) -> None:
    """A config.toml, or a sites.toml: that has tables."""
    values = tomllib.loads(block.text)
    assert values
    if any(isinstance(value, dict) for value in values.values()):
        sites = parse_sites(block.text, folder / "sites.toml", folder)
        assert sites.away or sites.home.elastic
        return
    Config.model_validate(values)
    assert "home" not in values


def check_json(block: Block, folder: Path) -> None:
    """JSON."""
    json.loads(block.text)


def check_nginx(block: Block, folder: Path) -> None:
    """A file for nginx's conf.d."""
    conf = nginx_conf(block.text.replace("listen 443", "listen 127.0.0.1:44300"), folder)  # 443 is root's
    done = subprocess.run(
        ["/usr/sbin/nginx", "-t", "-q", "-e", folder / "error.log", "-c", conf],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def nginx_conf(text: str, folder: Path) -> Path:
    """The whole configuration around a conf.d file, with a certificate made for it."""
    made = ["-keyout", folder / "key", "-out", folder / "cert", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made], check=True, capture_output=True
    )
    text = re.sub(r"(ssl_certificate) \S+;", rf"\1 {folder}/cert;", text)
    text = re.sub(r"(ssl_certificate_key) \S+;", rf"\1 {folder}/key;", text)
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    conf = folder / "nginx.conf"
    conf.write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log;\nevents {{}}\n"
        f"http {{ access_log off; {temporary}\n{text}\n}}\n"
    )
    return conf


_NODE = r"\w+(?:\(\([^()]+\)\)|\[\([^()\[\]]+\)\]|\[[^\[\]]+\]|\([^()]+\))?"
_FLOW = re.compile(rf"{_NODE}(?: (?:-->|---|-\.->)(?:\|[^|]+\|)? {_NODE})*")


def check_mermaid(block: Block, folder: Path) -> None:
    """A flow chart of nodes and arrows, in which every node is named."""
    head, *lines = block.text.rstrip().splitlines()
    assert re.fullmatch(r"flowchart (LR|TD)", head), f"{block}: {head}"
    assert lines
    for line in lines:
        assert _FLOW.fullmatch(line.strip()), f"{block}: {line}"


def check_python(block: Block, folder: Path) -> None:
    """Run by page, see test_the_python_of_a_page_runs and test_session."""
    compile(block.text, str(block), "exec")
    assert block.page in PYTHON or block.page == "docs/api.md", f"{block}: nobody runs this"


CHECKS: dict[str, Callable[[Block, Path], None]] = {
    "console": check_console,
    "bash": check_bash,
    "toml": check_toml,
    "json": check_json,
    "nginx": check_nginx,
    "mermaid": check_mermaid,
    "python": check_python,
}


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_every_block_is_of_a_kind_that_is_checked(block: Block, tmp_path: Path) -> None:
    assert block.kind in CHECKS, f"{block}: nothing is known of blocks of the kind {block.kind!r}"
    CHECKS[block.kind](block, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_all_code_is_fenced(page: Path) -> None:
    assert not re.search(r"\n\n(?: {4}|\t)\S", prose(page))
    assert prose(page).count("```") == 0


@pytest.mark.parametrize(
    "words",
    ["begin", "up --demon", "run start P", "project create", "project list more", "upload P x --jobs"],
)
def test_a_command_that_is_not_there_is_noticed(words: str) -> None:
    with pytest.raises(click.UsageError):
        parse(words.split(), whole=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_are_there(page: Path) -> None:
    for code in inline_code(page):
        words = shlex.split(code) if code.startswith(PROGRAMS) else []
        if words and words[0] in PROGRAMS:
            parse(words[1:], whole=False)


def _second_tool(namespace: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its block has run, the tool is a module beside the others, and the catalogue knows it."""
    module = ModuleType("scipion_cloud.tools.quick_look")
    vars(module).update(namespace)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    import scipion_cloud.tools as package

    monkeypatch.setattr(package, "quick_look", module, raising=False)


def _catalogue(namespace: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_TOOLS", namespace["_TOOLS"])
    catalogue._completed.cache_clear()


# page -> what happens after the n-th block of Python, by n
After = Callable[[dict[str, Any], pytest.MonkeyPatch], None]
PYTHON: dict[str, dict[int, After]] = {
    "docs/how-to/add-a-tool.md": {1: _second_tool, 2: _catalogue},
    "docs/how-to/add-a-batch-system.md": {},
    "docs/how-to/add-a-storage.md": {},
}


@pytest.mark.parametrize("page", PYTHON)
def test_the_python_of_a_page_runs(
    page: str, software: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = LocalBackend(tmp_path / "jobs", Limits(cpus=2, memory_gb=2.0))
    namespace: dict[str, Any] = {"__name__": "page", "MySystem": lambda: backend, "MyServer": MemoryStorage}
    for number, block in enumerate(b for b in blocks() if b.page == page and b.kind == "python"):
        exec(compile(block.text, str(block), "exec"), namespace)  # noqa: S102 - our own docs
        PYTHON[page].get(number, lambda *_: None)(namespace, monkeypatch)
    ran = _run_tests(namespace, backend, tmp_path)
    catalogue._completed.cache_clear()
    assert ran, "the page has no test"


def _run_tests(namespace: dict[str, Any], backend: LocalBackend, folder: Path) -> list[str]:
    """Call the tests that a page defines, and one of those that a class of it inherits from a contract."""
    ran = []
    for name, value in list(namespace.items()):
        if name.startswith("test_"):
            value()
            ran.append(name)
        elif name.startswith("Test"):
            contract, suite = value(), value.__mro__[1]
            (fixture,) = {"backend", "storage"} & vars(suite).keys()
            assert vars(value)[fixture] is not vars(suite)[fixture]
            if fixture == "backend":
                contract.test_same_key_same_job(backend, folder)
            else:
                contract.test_create(MemoryStorage())
            ran.append(name)
    return ran


def _screenshots() -> set[str]:
    """The names of the pictures that docs/screenshots.py takes."""
    file = ROOT / "docs" / "screenshots.py"
    spec = importlib.util.spec_from_file_location("screenshots", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source = file.read_text()
    names = re.findall(r'\bshot\("([\w-]+)"', source) + re.findall(r'f"([\w-]+)-\{look\}\.png"', source)
    return {f"{name}-{look}.png" for name in names for look in module.LOOKS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    made = _screenshots()
    for link in links(page):
        if link.target.startswith("https://"):
            continue
        path, _, anchor = link.target.partition("#")
        target = (page.parent / path).resolve() if path else page
        if link.picture and target.parent == ROOT / "docs" / "screenshots":
            assert target.name in made, f"docs/screenshots.py does not make {target.name}"
            continue
        assert target.is_relative_to(ROOT), f"{link.target} leaves the repository"
        assert target.exists(), f"{link.target} is not there"
        assert not anchor or anchor in anchors(target), f"{target.name} has no heading #{anchor}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        targets = [(page.parent / link.target.partition("#")[0]).resolve() for link in links(page)]
        todo += [target for target in targets if target.suffix == ".md"]
    assert {str(p.relative_to(ROOT)) for p in PAGES} - {str(p.relative_to(ROOT)) for p in seen} == set()


@pytest.mark.parametrize("name", ["configuration", "sites"])
def test_the_reference_is_what_the_schema_says(name: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / f"{name}.py"], capture_output=True, text=True, check=True
    )
    stored = (ROOT / "docs" / "reference" / f"{name}.md").read_text()
    assert done.stdout == stored, f"run: python docs/{name}.py > docs/reference/{name}.md"
