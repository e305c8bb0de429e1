"""Calls of tools as tasks, by the extension ``io.modelcontextprotocol/tasks`` of MCP (SEP-2663).

A client that declares the extension in its request gets a task at once, asks for it until it has ended, and
may cancel it. The run goes on in between, whatever becomes of the connection. Tasks live in this process:
they end with the server.
"""

from __future__ import annotations

import secrets
from collections import deque
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    RequestParams,
)
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import Field

from ultra._support.log import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyio.abc import TaskGroup
    from mcp.server import ServerRequestContext
    from mcp.types import CallToolResult

    from ultra.mcp.runs import Reporter

__all__ = ["EXTENSION", "TaskParams", "Tasks", "check_knows_tasks", "knows_tasks"]

EXTENSION: Final = "io.modelcontextprotocol/tasks"
"""The name of the extension, as clients and servers declare it."""

_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
"""Where a request says what its client knows."""

_MOST: Final = 100
"""Tasks of one owner that are there at once; past this, calls are answered without one."""

_KEPT: Final = 600.0
"""Seconds for which a task is there after its end."""

_POLL: Final = 1000
"""Milliseconds after which a client should ask again."""

_log = get_logger("ultra.mcp")


class TaskParams(RequestParams):
    """The parameters of a request about a task; `inputResponses` are left alone, since nothing is asked."""

    task_id: str = Field(alias="taskId")


class _Task:
    """One call that goes on by itself."""

    def __init__(self, owner: str) -> None:
        self.id = secrets.token_urlsafe(24)
        self.owner = owner
        self.status: Literal["working", "completed", "failed", "cancelled"] = "working"
        self.message: str | None = None
        self.more: dict[str, Any] = {}
        self.scope = anyio.CancelScope()
        self.begun = anyio.current_time()
        self.ended: float | None = None
        self.created = self.updated = datetime.now(UTC)

    async def report(self, progress: float, total: float | None = None, message: str | None = None) -> None:  # noqa: ARG002 - a `Reporter`
        """Keep how far the call is: a task sends no progress, and its state tells of it."""
        if self.ended is None and message is not None:
            self.message, self.updated = message, datetime.now(UTC)

    def end(self, status: Literal["completed", "failed", "cancelled"], **more: Any) -> None:  # noqa: ANN401 - JSON
        """End it; what comes later changes nothing."""
        if self.ended is None:
            self.status, self.more, self.message = status, more, None
            self.ended, self.updated = anyio.current_time(), datetime.now(UTC)

    def on_wire(self, kind: Literal["task", "complete"]) -> dict[str, Any]:
        """Return it as a `kind` of result."""
        lasts = None if self.ended is None else round((self.ended - self.begun + _KEPT) * 1000)
        return {
            "resultType": kind,
            "taskId": self.id,
            "status": self.status,
            "createdAt": _time(self.created),
            "lastUpdatedAt": _time(self.updated),
            "ttlMs": lasts,
            "pollIntervalMs": _POLL,
            **({} if self.message is None else {"statusMessage": self.message}),
            **self.more,
        }


class Tasks:
    """The tasks of one server. `running` must be entered while it serves."""

    def __init__(self) -> None:
        self._all: dict[str, _Task] = {}
        self._of: dict[str, deque[_Task]] = {}
        self._group: TaskGroup | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let tasks run in the block; those under way at its end are cancelled."""
        async with anyio.create_task_group() as group:
            self._group = group
            try:
                yield
            finally:
                self._group = None
                group.cancel_scope.cancel()

    def begin(
        self, owner: str, call: Callable[[Reporter], Awaitable[CallToolResult]]
    ) -> dict[str, Any] | None:
        """Let a call go on as a task of its `owner`, and return the task; None: the owner has too many."""
        self._forget_old()
        mine = self._of.setdefault(owner, deque())
        if len(mine) >= _MOST:
            old = next((task for task in mine if task.ended is not None), None)
            if old is None:
                return None
            self._forget(old)
            mine = self._of.setdefault(owner, deque())
        assert self._group is not None  # noqa: S101 - requests come while the server runs
        task = _Task(owner)
        self._all[task.id] = task
        mine.append(task)
        self._group.start_soon(_carry_out, task, call)
        return task.on_wire("task")

    def show(self, owner: str, task_id: str) -> dict[str, Any]:
        """Return a task, with its result if it has ended. Raises `MCPError`: the owner has no such task."""
        return self._find(owner, task_id).on_wire("complete")

    def cancel(self, owner: str, task_id: str) -> dict[str, Any]:
        """Cancel what a task does; one that has ended stays as it is. Raises as `show` does."""
        task = self._find(owner, task_id)
        task.end("cancelled")
        task.scope.cancel()
        return {"resultType": "complete"}

    def update(self, owner: str, task_id: str) -> dict[str, Any]:
        """Acknowledge answers to questions that were never asked. Raises as `show` does."""
        self._find(owner, task_id)
        return {"resultType": "complete"}

    def _find(self, owner: str, task_id: str) -> _Task:
        self._forget_old()
        task = self._all.get(task_id)
        if task is None or task.owner != owner:
            raise MCPError(INVALID_PARAMS, f"there is no task {task_id[:100]!r}, or no longer")
        return task

    def _forget_old(self) -> None:
        now = anyio.current_time()
        for task in [each for each in self._all.values() if each.ended is not None]:
            if task.ended is not None and now - task.ended > _KEPT:
                self._forget(task)

    def _forget(self, task: _Task) -> None:
        del self._all[task.id]
        mine = self._of[task.owner]
        mine.remove(task)
        if not mine:
            del self._of[task.owner]


async def _carry_out(task: _Task, call: Callable[[Reporter], Awaitable[CallToolResult]]) -> None:
    with task.scope:
        try:
            result = await call(task.report)
        except MCPError as error:
            task.end("failed", error={"code": error.code, "message": error.message})
        except Exception as error:  # noqa: BLE001 - it must not end the others
            _log.error("task failed", exc_info=error)
            task.end("failed", error={"code": INTERNAL_ERROR, "message": "the call failed"})
        else:
            task.end("completed", result=result.model_dump(by_alias=True, mode="json", exclude_none=True))


def knows_tasks(context: ServerRequestContext[Any, Any]) -> bool:
    """Return whether the client of a request may be given a task: each request says so itself."""
    capabilities = (context.meta or {}).get(_CAPABILITIES)
    extensions = capabilities.get("extensions") if isinstance(capabilities, dict) else None
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS and EXTENSION in (extensions or {})


def check_knows_tasks(context: ServerRequestContext[Any, Any], method: str) -> None:
    """Raise `MCPError` for a request about tasks of a client that does not declare them."""
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(METHOD_NOT_FOUND, "Method not found", data=method)
    if not knows_tasks(context):
        raise MCPError(
            MISSING_REQUIRED_CLIENT_CAPABILITY,
            f"the client does not declare the extension {EXTENSION}",
            data={"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
        )


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
