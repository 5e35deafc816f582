"""Around everything that the portal answers: headers on every answer, a bound on every body but uploads."""

import json

from asgiref.sync import sync_to_async
from django.template.loader import render_to_string
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
SECURITY = (
    # scripts, styles, pictures and connections come from this server only, none of them inline
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)


class SecurityHeaders:
    """Adds the headers of `SECURITY` to every answer that does not have its own of them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                missing = [header for header in SECURITY if header[0] not in own]
                message = {**message, "headers": [*message["headers"], *missing]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


class BoundedBody:
    """Refuses bodies of more than `most` bytes with 413.

    Django writes a body to the disk, whole, before it asks who sent it: anybody could fill the disk.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        left, started = self._most, False

        async def receive_bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            return message if left >= 0 else {"type": "http.disconnect"}

        async def send_noticed(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        if int(Headers(scope=scope).get("content-length", 0)) > self._most:
            left = -1
        else:
            await self._app(scope, receive_bounded, send_noticed)
        if left < 0 and not started:
            await (await self._refusal(scope))(scope, receive, send)

    async def _refusal(self, scope: Scope) -> Response:
        text = (
            f"This request is larger than the {self._most // 2**20} MiB that a page takes. "
            "Shorten what you typed; files are sent on the project's data page."
        )
        if scope["path"].startswith("/api/") or "json" in Headers(scope=scope).get("accept", ""):
            return Response(json.dumps({"detail": text, "errors": {}}), 413, media_type="application/json")
        page = await sync_to_async(render_to_string)("error.html", {"message": text})
        return Response(page, 413, media_type="text/html")
