"""Talking to a Scipion Cloud over its HTTP API; every failure becomes one clear sentence."""

import functools
from collections.abc import Callable
from typing import Any

import click
import httpx

from scipion_cloud.cli.credentials import choose_server
from scipion_cloud.errors import InvalidInput, NotFound, ScipionCloudError

TIMEOUT = httpx.Timeout(60, connect=10, read=300)  # s; a new project takes a few seconds, a demo longer
_MIN_PREFIX = 4  # characters of an id that may stand for it

Json = dict[str, Any]


class ServerError(ScipionCloudError):
    """The server refused a request or could not be reached; `status` is 0 in the second case."""

    def __init__(self, message: str, status: int = 0) -> None:
        self.status = status
        super().__init__(message)


class Client:
    """The API of one server, for one person. Use it in a `with` block.

    `transport` is for tests. All methods raise ServerError.
    """

    def __init__(self, server: str, token: str = "", transport: httpx.BaseTransport | None = None) -> None:
        self.server = server
        headers = {"Accept": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        self.http = httpx.Client(base_url=server, headers=headers, timeout=TIMEOUT, transport=transport)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def get(self, path: str, **query: Any) -> Any:
        """GET below /api/v1."""
        return self._call("GET", path, params=query)

    def post(self, path: str, body: Json | None = None) -> Any:
        """POST below /api/v1."""
        return self._call("POST", path, json=body)

    def delete(self, path: str) -> None:
        """DELETE below /api/v1."""
        self._call("DELETE", path)

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        try:
            response = self.http.request(method, f"/api/v1{path}", **kwargs)
        except httpx.TransportError as e:
            raise unreachable(self.server, e) from e
        if response.is_success:
            return response.json() if response.content else None
        raise refusal(self.server, response)

    def project(self, wanted: str) -> Json:
        """The project with this id, the start of its id, or this name. Raises NotFound or InvalidInput."""
        return pick(self.get("/projects"), wanted, "project", "name")

    def storage(self, wanted: str) -> Json:
        """The connected storage with this id, the start of its id, or this name. Raises NotFound."""
        return pick(self.get("/storages"), wanted, "storage", "name")

    def run(self, project: Json, wanted: str | None) -> Json:
        """The run of a project with this id or start of an id; the newest without one. Raises NotFound."""
        runs = self.get(f"/projects/{project['id']}/runs")
        if wanted is None:
            if not runs:
                raise NotFound(
                    f"Nothing has been run in '{project['name']}' yet; see `scipion-cloud run start --help`."
                )
            newest: Json = runs[0]
            return newest
        return pick(runs, wanted, "run")


def pick(rows: list[Json], wanted: str, what: str, name: str = "id") -> Json:
    """The one row with this id or name, or whose id starts so. Raises NotFound; InvalidInput if several."""
    start = wanted.lower()
    prefixed = [row for row in rows if len(start) >= _MIN_PREFIX and row["id"].startswith(start)]
    for found in ([r for r in rows if r["id"] == start], [r for r in rows if r[name] == wanted], prefixed):
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(row["id"] for row in found)
            raise InvalidInput(
                f"There are {len(found)} {what}s like '{wanted}': say which by its id ({ids})."
            )
    raise NotFound(f"There is no {what} '{wanted}' here; the list shows names and ids.")


def unreachable(server: str, error: httpx.TransportError) -> ServerError:
    """The server does not answer."""
    why = str(error) or type(error).__name__
    return ServerError(f"{server} cannot be reached ({why}). Is it running, and is the address right?")


def refusal(server: str, response: httpx.Response) -> ServerError:
    """The server's own words for what it refuses."""
    try:
        problem = response.json()
        text, errors = str(problem["detail"]), dict(problem.get("errors") or {})
    except (ValueError, KeyError, TypeError):
        text, errors = f"{server} answered {response.status_code} {response.reason_phrase}.", {}
    if response.status_code == httpx.codes.UNAUTHORIZED and "Authorization" in response.request.headers:
        text = f"Your sign-in at {server} has ended. Run `scipion-cloud login {server}`."
    if errors:
        text = "\n".join(f"{field}: {message}" for field, message in errors.items())
    return ServerError(text, response.status_code)


def with_client(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--server` and `--json`, and call it with `client` and `as_json`."""

    @click.option(
        "--server", metavar="URL", help="Which Scipion Cloud; else $SCIPION_CLOUD_SERVER or the only one."
    )
    @click.option("--json", "as_json", is_flag=True, help="Answer with JSON on standard output.")
    @functools.wraps(command)
    def wrapped(*args: Any, server: str | None, **kwargs: Any) -> Any:
        address, credential = choose_server(server)
        with Client(address, credential.token) as client:
            return command(*args, client=client, **kwargs)

    return wrapped
