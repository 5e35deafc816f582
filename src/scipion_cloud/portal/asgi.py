"""The one ASGI application: Starlette streams uploads, desktops and static files; the rest is Django's."""

import os
from typing import cast

from django.conf import settings
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scipion_cloud.portal.settings")
_django = get_asgi_application()

from starlette.applications import Starlette  # noqa: E402 - Django must be set up before its models are imported
from starlette.routing import Mount  # noqa: E402
from starlette.staticfiles import StaticFiles  # noqa: E402
from starlette.types import ASGIApp  # noqa: E402

from scipion_cloud.portal.desktops.relay import routes as desktop_routes  # noqa: E402
from scipion_cloud.portal.gate import BoundedBody, SecurityHeaders  # noqa: E402
from scipion_cloud.portal.uploads.tus import routes as upload_routes  # noqa: E402

_static = Mount(
    settings.STATIC_URL.rstrip("/"), app=StaticFiles(directory=settings.STATIC_ROOT, check_dir=False)
)
_pages = BoundedBody(cast(ASGIApp, _django), settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
application = SecurityHeaders(
    Starlette(routes=[*upload_routes, *desktop_routes, _static, Mount("/", app=_pages)])
)
