"""The tools that can be run, with their forms."""

from ninja import Router, Schema
from pydantic import Field, JsonValue

from scipion_cloud.portal.api.auth import ApiRequest
from scipion_cloud.portal.api.problems import PROBLEMS
from scipion_cloud.tools.catalogue import tool, tools
from scipion_cloud.tools.tool import Tool

router = Router(tags=["tools"])


class ToolInfo(Schema):
    """Something that can be run in a project."""

    id: str
    title: str
    summary: str
    form: dict[str, JsonValue] = Field(
        description="JSON schema of the parameters, with titles, units and defaults."
    )


@router.get("", response={200: list[ToolInfo], **PROBLEMS}, summary="Tools")
def list_tools(request: ApiRequest) -> list[ToolInfo]:  # noqa: ARG001 - whoever is signed in
    """All tools, each with the form of its parameters."""
    return [_info(each) for each in tools()]


@router.get("/{tool_id}", response={200: ToolInfo, **PROBLEMS}, summary="One tool")
def get_tool(request: ApiRequest, tool_id: str) -> ToolInfo:  # noqa: ARG001
    """One tool with the form of its parameters."""
    return _info(tool(tool_id))


def _info(each: Tool) -> ToolInfo:
    return ToolInfo(id=each.id, title=each.title, summary=each.summary, form=each.form())
