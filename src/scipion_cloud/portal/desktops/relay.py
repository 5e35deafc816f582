"""The door of a desktop: who may connect a WebSocket to its screen, and for how long."""

import uuid
from urllib.parse import urlsplit

from asgiref.sync import sync_to_async
from django.db import close_old_connections
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from scipion_cloud.config import get_config
from scipion_cloud.desktops.relay import relay
from scipion_cloud.desktops.settings import SOCKET
from scipion_cloud.model import DesktopState, Role
from scipion_cloud.portal.rights import user_of
from scipion_cloud.records.models import Desktop, DesktopTicket, User

TICKET = (
    "scipion-cloud.ticket."  # a subprotocol of this form carries the ticket: an address would end up in logs
)
SUBPROTOCOL = "binary"


async def screen(websocket: WebSocket) -> None:
    """Check everything, then relay. A refusal comes before the handshake ends (403) and gives no reason."""
    desktop_id: uuid.UUID = websocket.path_params["desktop_id"]
    ticket = ticket_of(websocket)
    user = await user_of(websocket) if ticket and is_own_origin(websocket) else None
    role = await _admit(desktop_id, user, ticket) if user else None
    if role is None:
        await websocket.close()
        return

    async def refusal() -> str | None:
        person = await user_of(websocket)
        if person is None:
            return "You have signed out."
        return await _refusal(desktop_id, person, role)

    await websocket.accept(SUBPROTOCOL)
    socket_path = get_config().desktops / desktop_id.hex / SOCKET
    await relay(websocket, socket_path, view_only=role is Role.VIEWER, refusal=refusal)


def ticket_of(websocket: WebSocket) -> str:
    """The ticket among the subprotocols that the browser offers, next to `binary`; empty if there is none."""
    offered = websocket.scope["subprotocols"]
    tickets = [each.removeprefix(TICKET) for each in offered if each.startswith(TICKET)]
    return tickets[0] if len(tickets) == 1 and SUBPROTOCOL in offered else ""


def is_own_origin(websocket: WebSocket) -> bool:
    """Whether the page that connects is ours: browsers let any page open a WebSocket, with our cookies."""
    origin = websocket.headers.get("origin", "")
    public = urlsplit(get_config().url)
    if origin == f"{public.scheme}://{public.netloc}":
        return True
    # without a proxy the same server has several names: localhost, 127.0.0.1
    scheme = "https" if websocket.url.scheme == "wss" else "http"
    return not get_config().public_url and origin == f"{scheme}://{websocket.headers.get('host', '')}"


@sync_to_async
def _admit(desktop_id: uuid.UUID, user: User, ticket: str) -> Role | None:
    """Use the ticket up; EDITOR, or VIEWER who only watches, or None for nobody's business."""
    close_old_connections()
    if not DesktopTicket.redeem(ticket, desktop_id, user.pk):
        return None
    return _role(desktop_id, user)


@sync_to_async
def _refusal(desktop_id: uuid.UUID, user: User, role: Role) -> str | None:
    close_old_connections()
    actual = _role(desktop_id, user)
    if actual is role:
        return None
    return (
        "The desktop has ended, or you may no longer see it." if actual is None else "Your role has changed."
    )


def _role(desktop_id: uuid.UUID, user: User) -> Role | None:
    desktop = (
        Desktop.objects.select_related("project")
        .filter(pk=desktop_id, state=DesktopState.READY.value, stop_requested=False, project__deleted=None)
        .first()
    )
    if desktop is None:
        return None
    return next((role for role in (Role.EDITOR, Role.VIEWER) if desktop.project.allows(user, role)), None)


routes = [WebSocketRoute("/desktops/{desktop_id:uuid}/socket", screen)]
