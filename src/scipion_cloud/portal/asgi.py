"""The one ASGI application: uploads and desktop connections stream through Starlette, the rest is Django."""

import os
from typing import cast

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scipion_cloud.portal.settings")
_django = get_asgi_application()

from starlette.applications import Starlette  # noqa: E402 - Django must be set up before its models are imported
from starlette.routing import Mount  # noqa: E402
from starlette.types import ASGIApp  # noqa: E402

from scipion_cloud.portal.desktops.relay import routes as desktop_routes  # noqa: E402
from scipion_cloud.portal.uploads.tus import routes as upload_routes  # noqa: E402

application = Starlette(routes=[*upload_routes, *desktop_routes, Mount("/", app=cast(ASGIApp, _django))])
