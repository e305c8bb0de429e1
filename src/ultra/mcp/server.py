"""The MCP server of a service: it lists the tools, and calls them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from ultra._support.log import get_logger
from ultra.errors import MissingExtra
from ultra.service import access
from ultra.service.http import Request
from ultra.service.problems import problem_of

try:
    from mcp.server import Server
    from mcp.shared.exceptions import MCPError
    from mcp.types import INVALID_PARAMS, CallToolResult, ListToolsResult, TextContent
except ImportError:
    raise MissingExtra("the MCP server", "mcp") from None

from ultra.mcp.answers import TOOLS, text_of
from ultra.mcp.runs import Caller
from ultra.mcp.tasks import EXTENSION, TaskParams, Tasks, check_knows_tasks, knows_tasks
from ultra.mcp.tools import tools_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mcp.server import ServerRequestContext
    from mcp.types import CallToolRequestParams, PaginatedRequestParams

    from ultra.mcp.runs import Reporter
    from ultra.service.core import Service
    from ultra.service.problems import Problem

__all__ = ["WHO", "make_server"]

WHO: Final = "ultra.who"
"""Where the scope of an HTTP request says who sends it."""

_INSTRUCTIONS: Final = (
    "Ultra asks several language models at once and merges their answers. Call models to see what can be "
    "asked, ask for one merged answer, and compare for the answers side by side."
)

_LONG: Final = frozenset({"ask", "compare"})
"""Tools that may be carried out as tasks."""

_log = get_logger("ultra.mcp")


def make_server(service: Service) -> Server[None]:
    """Return the server; while it runs, so do the actors of the service's models."""
    tasks = Tasks()

    @asynccontextmanager
    async def lifespan(_: Server[None]) -> AsyncIterator[None]:
        async with service.running(), tasks.running():
            yield

    async def list_tools(
        context: ServerRequestContext[None, Any],
        params: PaginatedRequestParams | None,  # noqa: ARG001 - all fit into one page
    ) -> ListToolsResult:
        _, who = _sender(context.request)
        return ListToolsResult(tools=tools_of(service.targets_for(who)))

    async def call_tool(
        context: ServerRequestContext[None, Any], params: CallToolRequestParams
    ) -> CallToolResult | dict[str, Any]:
        if params.name in _LONG and knows_tasks(context):
            _, who = _sender(context.request)
            task = tasks.begin(who.name, lambda report: _called(service, context, params, report))
            if task is not None:
                return task
        return await _called(service, context, params, context.session.report_progress)

    server = Server(
        "ultra",
        version=version("ultra-llm"),
        title="Ultra",
        description="Several language models, asked at once, and one answer",
        instructions=_INSTRUCTIONS,
        lifespan=lifespan,
        on_list_tools=list_tools,
        on_call_tool=cast("Any", call_tool),  # the SDK sends a task, too, but its types do not say so
    )
    server.extensions[EXTENSION] = {}
    for method, answer in (
        ("tasks/get", tasks.show),
        ("tasks/cancel", tasks.cancel),
        ("tasks/update", tasks.update),
    ):
        server.add_request_handler(method, TaskParams, _about_tasks(method, answer))
    return server


def _about_tasks(
    method: str, answer: Callable[[str, str], dict[str, Any]]
) -> Callable[[ServerRequestContext[None, Any], TaskParams], Awaitable[dict[str, Any]]]:
    """Return what handles a request about a task; each sender has tasks of its own."""

    async def handle(context: ServerRequestContext[None, Any], params: TaskParams) -> dict[str, Any]:
        check_knows_tasks(context, method)
        _, who = _sender(context.request)
        return answer(who.name, params.task_id)

    return handle


async def _called(
    service: Service,
    context: ServerRequestContext[None, Any],
    params: CallToolRequestParams,
    report: Reporter,
) -> CallToolResult:
    """Call a tool; what goes wrong in it is its result, so that the model that called it can read it.

    Cancelling this cancels what the tool does.
    """
    tool = TOOLS.get(params.name)
    if tool is None:
        raise MCPError(
            INVALID_PARAMS, f"there is no tool {params.name[:100]!r}; there are: {', '.join(TOOLS)}"
        )
    request, who = _sender(context.request)
    caller = Caller(request, who, report)
    try:
        result = await tool(service, params.arguments or {}, caller)
    except Exception as error:  # noqa: BLE001 - the client gets an answer, whatever it is
        problem = problem_of(error)
        if problem.code == "internal_error":
            _log.error("tool failed", tool=params.name, exc_info=error)
        return CallToolResult(content=[TextContent(type="text", text=_told(problem))], is_error=True)
    return CallToolResult(
        content=[TextContent(type="text", text=text_of(result))],
        structured_content=msgspec.to_builtins(result),
    )


def _sender(given: Any) -> tuple[Request, access.Caller]:  # noqa: ANN401 - the SDK's: a request of Starlette, or None
    """Return the request as the service sees it, and who sends it; on stdio, that is nobody else."""
    if given is None:
        return Request(method="POST", path="/mcp"), access.Caller()
    headers = {name.lower(): value for name, value in given.headers.items()}
    peer = given.client.host if given.client is not None else None
    request = Request(method="POST", path="/mcp", headers=headers, peer=peer)
    return request, given.scope.get(WHO) or access.Caller()


def _told(problem: Problem) -> str:
    """Return what is told of a problem: what is wrong, and which models failed, in neutral words."""
    failed = [f"{each['model']}: {each['error']}" for each in problem.details.get("failed_models", ())]
    told = f" (failed: {', '.join(dict.fromkeys(failed))})" if failed else ""
    wait = "" if problem.retry_after is None else f"; try again in {problem.retry_after:g} s"
    return f"{problem.message}{told}{wait}"
