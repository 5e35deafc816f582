"""Talking to an agent through its socket: for the portal, the command line and tests."""

import contextlib
import http.client
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from scipion_cloud.deployments.server import HEADER
from scipion_cloud.deployments.sockets import Connection, address
from scipion_cloud.deployments.status import STATUS_FILE, AgentStatus
from scipion_cloud.errors import Conflict, InvalidInput

_TIMEOUT = 10.0  # s
_ORDERS = {HEADER: "1"}


class AgentClient:
    """The agent of one state folder.

    All methods but `status` and `last_status` raise Conflict when no agent listens, or when it refuses;
    InvalidInput for a value that cannot be right.
    """

    def __init__(self, state: Path) -> None:
        self.state = state

    def status(self) -> AgentStatus | None:
        """What the running agent says; None when there is none."""
        try:
            return AgentStatus.from_json(self._request("GET", "/status").content)
        except Conflict:
            return None

    def last_status(self) -> AgentStatus | None:
        """What the agent said last, also after its end; None when nothing is known."""
        if (now := self.status()) is not None:
            return now
        with contextlib.suppress(OSError, ValueError):
            return AgentStatus.from_json((self.state / STATUS_FILE).read_bytes())
        return None

    def save(self, *, wait: bool = False) -> dict[str, Any]:
        """Save now. With `wait` returns when it is done: `generation`, `files`, `bytes`, `problems`."""
        return self._order("/save", wait=wait)

    def close(self) -> None:
        """Save for the last time and release the project."""
        self._order("/close")

    def confirm(self) -> None:
        """Allow the save that asks, once."""
        self._order("/confirm")

    def revert(self, generation: int, *, wait: bool = False) -> dict[str, Any]:
        """Save, then go back to a generation; that becomes a new one."""
        return self._order("/revert", wait=wait, generation=str(generation))

    def set_deadline(self, at: datetime | None) -> None:
        """When it is to close by itself; None for never."""
        self._order("/deadline", at=at.isoformat() if at else "")

    def fetch(self, path: str) -> httpx.Response:
        """GET anything, as it is. Raises Conflict."""
        return self._request("GET", path)

    def post(self, path: str, query: dict[str, str]) -> httpx.Response:
        """POST an order, the answer as it is. Raises Conflict only when no agent listens."""
        wait = query.get("wait") == "1"
        return self._request("POST", path, params=query, headers=_ORDERS, timeout=None if wait else _TIMEOUT)

    def _order(self, path: str, *, wait: bool = False, **query: str) -> dict[str, Any]:
        answer = self.post(path, {**query, **({"wait": "1"} if wait else {})})
        content: dict[str, Any] = answer.json()
        if answer.is_success:
            return content
        error = InvalidInput if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY else Conflict
        raise error(content["detail"])

    def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = _TIMEOUT,
    ) -> httpx.Response:
        try:
            with address(self.state) as short, contextlib.closing(Connection(short, timeout)) as agent:
                target = f"{path}?{urlencode(params)}" if params else path
                agent.request(method, target, headers=dict(headers or {}))
                answer = agent.getresponse()
                content = answer.read()
            return httpx.Response(answer.status, headers=answer.getheaders(), content=content)
        except (OSError, http.client.HTTPException) as e:
            raise Conflict(
                f"No agent answers for {self.state}. `scipion-cloud agent run` with this --state starts it."
            ) from e
