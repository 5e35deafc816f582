"""The HTTP API: everything that the pages can do, for programs. Described at /api/v1/openapi.json."""

from ninja import NinjaAPI
from ninja.operation import Operation

from scipion_cloud.portal.api import (
    account,
    data,
    deployments,
    desktops,
    projects,
    runs,
    sites,
    storages,
    tools,
)
from scipion_cloud.portal.api.auth import Session, Token
from scipion_cloud.portal.api.parser import TextParser
from scipion_cloud.portal.api.problems import handle_problems


class Api(NinjaAPI):
    """The API with short, stable names for its operations."""

    def get_openapi_operation_id(self, operation: Operation) -> str:
        """The name of the function, which is unique."""
        return operation.view_func.__name__


api = Api(
    title="Scipion Cloud",
    version="1",
    urls_namespace="api",
    description="Cryo-EM processing with Scipion as a service.",
    auth=[Token(), Session()],
    parser=TextParser(),
    docs_url=None,  # the usual viewers come from a CDN
)
handle_problems(api)
api.add_router("", account.router)
api.add_router("/tools", tools.router)
api.add_router("/storages", storages.router)
api.add_router("/sites", sites.router)
for part in (projects, data, runs, desktops, deployments):
    api.add_router("/projects", part.router)

__all__ = ["api"]
