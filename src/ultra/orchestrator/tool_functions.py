"""Calls the functions that models ask for, side by side, and gives each call a result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from ultra.bridge.caller import trio_runner
from ultra.bridge.interruption import is_interruption
from ultra.clients.plain_values import plain_text
from ultra.clients.signature import may_block
from ultra.clients.wire.redaction import clipped, redact_keys
from ultra.errors import BadCall, DeadlineExceeded, title_of
from ultra.messages.chat import ChatMessage, FilePart, ImagePart, TextPart
from ultra.messages.conversation_checks import check_content
from ultra.messages.events import ToolEnded, ToolStarted
from ultra.messages.functions import FunctionTool, tools_of
from ultra.messages.message_types import checked_message
from ultra.messages.pydantic_models import to_plain

if TYPE_CHECKING:
    from ultra.bridge.caller import Caller
    from ultra.messages.chat import Part, ToolCall
    from ultra.messages.events import Event

__all__ = ["ToolFunctions"]

_MOST_THREADS: Final = 32
_LONGEST_ERROR: Final = 2_000  # characters


class ToolFunctions:
    """Functions by the names under which models call them.

    Raises:
        BadCall: there is none, one is no function, its types have no schema, or two have the same name.
    """

    def __init__(self, functions: object) -> None:
        if isinstance(functions, str | Mapping) or not isinstance(functions, Iterable):
            raise BadCall(f"functions is of type {type(functions).__name__}; it must be a list of functions")
        found = [_function_tool(each, f"functions[{index}]") for index, each in enumerate(functions)]
        if not found:
            raise BadCall("functions is empty; give at least one function, or use process_responses")
        self.tools = tools_of(found)
        self._functions = {tool.tool.name: tool for tool in found}

    async def answer(
        self,
        calls: tuple[ToolCall, ...],
        caller: Caller,
        emit: Callable[[Event], None],
        *,
        turn: int,
        within: float,
    ) -> list[ChatMessage]:
        """Call what `calls` name, side by side, and return their results in the same order. On trio.

        An async function runs on the loop of `caller`, others in worker threads; all see its context
        variables. Cancelled, this cancels those that are async and waits for their end; a thread cannot be
        interrupted: it is given up, and what it returns is dropped. What goes wrong with a call is its
        result.

        Raises:
            DeadlineExceeded: they had not ended after `within` seconds.
        """
        results: dict[int, ChatMessage] = {}
        limiter = trio.CapacityLimiter(_MOST_THREADS)

        async def one(number: int, call: ToolCall) -> None:
            message = results[number] = await self._result(call, caller, limiter)
            seconds = trio.current_time() - started
            emit(ToolEnded(stage="tools", round=turn, call=call, message=message, seconds=seconds))

        started = trio.current_time()
        for call in calls:
            emit(ToolStarted(stage="tools", round=turn, call=call))
        with trio.move_on_after(within) as scope:
            async with trio.open_nursery(strict_exception_groups=True) as nursery:
                for number, call in enumerate(calls):
                    nursery.start_soon(one, number, call)
        if scope.cancelled_caught:
            late = ", ".join(repr(call.name) for at, call in enumerate(calls) if at not in results)
            raise DeadlineExceeded(f"the tools had not ended when the time was over: {late}")
        return [results[number] for number in range(len(calls))]

    async def _result(self, call: ToolCall, caller: Caller, limiter: trio.CapacityLimiter) -> ChatMessage:
        tool = self._functions.get(call.name)
        if tool is None:
            return _failed(call, f"there is no tool {call.name!r}; there are: {', '.join(self._functions)}")
        try:
            arguments = tool.decode(call.arguments)
        except Exception as error:  # noqa: BLE001 - a type of the caller's may raise anything when it is made
            return _failed(call, f"the arguments are not allowed: {_said(error)}")
        try:
            given = await _call(partial(tool.function, **arguments), tool.function, caller, limiter)
        except BaseException as error:
            if is_interruption(error):
                raise
            return _failed(call, _said(error))
        try:
            message = ChatMessage("tool", _content(given), tool_call_id=call.id, name=call.name)
            message = checked_message(message, "the result of the tool")
            check_content(message, "the result of the tool")
        except BadCall as error:
            return _failed(call, _said(error))
        except Exception:  # noqa: BLE001 - a hook of the caller's type may raise anything
            kind = type(given).__name__
            return _failed(call, f"the result of the tool, a {kind}, cannot be written as JSON")
        return message


def _function_tool(given: object, where: str) -> FunctionTool:
    if isinstance(given, FunctionTool):
        return given
    if callable(given) and not isinstance(given, type):
        return FunctionTool(given)
    raise BadCall(
        f"{where} is of type {type(given).__name__}; it must be a function with types, or a FunctionTool"
    )


async def _call(
    call: Callable[[], object], function: Callable[..., object], caller: Caller, limiter: trio.CapacityLimiter
) -> object:
    runner = caller.runner or trio_runner

    async def outcome(begin: Callable[[], object]) -> object:
        given = begin()
        return await given if isawaitable(given) else given

    if not may_block(function):
        return await runner(lambda _: outcome(call), None, caller.context)
    # In a tuple, since trio refuses a coroutine that comes out of a thread.
    (given,) = await trio.to_thread.run_sync(
        caller.context.copy().run, lambda: (call(),), abandon_on_cancel=True, limiter=limiter
    )
    if isawaitable(given):  # a plain function around a coroutine function, such as a decorator makes
        return await runner(lambda _: outcome(lambda: given), None, caller.context)
    return given


def _failed(call: ToolCall, text: str) -> ChatMessage:
    return ChatMessage("tool", text, tool_call_id=call.id, name=call.name, is_error=True)


def _said(error: BaseException) -> str:
    return plain_text(clipped(title_of(error), _LONGEST_ERROR, redact_keys))


def _content(given: Any) -> str | tuple[Part, ...]:  # noqa: ANN401 - what a function returned
    """Return a result as a message has it: text and parts as they are, all else as JSON."""
    if isinstance(given, str):
        return plain_text(given)
    many = given if isinstance(given, list | tuple) else (given,)
    has_parts = any(isinstance(each, TextPart | ImagePart | FilePart) for each in many)
    if has_parts and all(isinstance(each, str | TextPart | ImagePart | FilePart) for each in many):
        return tuple(
            TextPart(plain_text(each if isinstance(each, str) else each.text))
            if isinstance(each, str | TextPart)
            else each
            for each in many
        )
    return msgspec.json.encode(given, enc_hook=to_plain).decode()
