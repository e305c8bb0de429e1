"""Faults of calls to models: failures, hangs, delays, garbage, streams that break off or are slow."""

from __future__ import annotations

from math import inf
from string import printable
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self, get_args

import trio

from ultra.clients.adapter import ClientAdapter, OnText, OnUsage
from ultra.errors import BadCall, ModelError
from ultra.faults.actor_faults import ErrorMaker, check_error, current_stage, make_error
from ultra.faults.rule_set import RuleSet
from ultra.faults.rules import (
    CallConditions,
    Fault,
    Hook,
    Rule,
    Seconds,
    check_retry_after,
    check_seconds,
    draw_seconds,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Unpack

    from ultra.bridge.caller import Caller
    from ultra.clients.catalog.model_info import ModelInfo
    from ultra.clients.context_reads import ContextReads
    from ultra.clients.wire.rate_limits import RateLimits
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import Completion

__all__ = ["CallFaults", "Garbage"]

Garbage = Literal["noise", "empty", "type"]
"""What a model answers instead: random letters, nothing, or an object that is no text."""

_NOISE_CHARACTERS: Final = 200


class _FailCall(Fault, frozen=True):
    name: ClassVar[str] = "fail_call"
    hook: ClassVar[Hook] = "call"

    status: int | None = None
    error: ErrorMaker | None = None
    retry_after: float | None = None

    @property
    def ends(self) -> bool:
        return True


class _HangCall(Fault, frozen=True):
    name: ClassVar[str] = "hang_call"
    hook: ClassVar[Hook] = "call"

    @property
    def ends(self) -> bool:
        return True


class _DelayCall(Fault, frozen=True):
    name: ClassVar[str] = "delay_call"
    hook: ClassVar[Hook] = "call"

    seconds: Seconds


class _GarbleCall(Fault, frozen=True):
    name: ClassVar[str] = "garble_call"
    hook: ClassVar[Hook] = "call"

    garbage: Garbage = "noise"

    @property
    def ends(self) -> bool:
        return True


class _CutStream(Fault, frozen=True):
    name: ClassVar[str] = "cut_stream"
    hook: ClassVar[Hook] = "call"

    pieces: int


class _SlowStream(Fault, frozen=True):
    name: ClassVar[str] = "slow_stream"
    hook: ClassVar[Hook] = "call"

    seconds: Seconds


class InjectedStatus(Exception):
    """An HTTP status that a fault plan made up. It has the attributes that errors of HTTP clients have."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(f"injected by a fault plan: status {status}")
        self.status_code = status
        self.headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}


class CallFaults(RuleSet):
    """The methods that add rules about calls to models.

    `model` is a pattern for the names that models are registered under. The conditions are those of
    `CallConditions`. One call is one attempt: each retry is another call.
    """

    def fail_call(
        self,
        model: str = "*",
        *,
        status: int | None = None,
        error: ErrorMaker | None = None,
        retry_after: float | None = None,
        **when: Unpack[CallConditions],
    ) -> Self:
        """Fail a call with an HTTP `status`, with `error`, or (if neither is given) with status 500.

        `retry_after` is how long the server asks to wait [s]. It needs a status.
        """
        if status is not None and error is not None:
            raise BadCall("fail_call takes a status or an error, not both")
        if status is None and error is None:
            status = 500
        if status is not None and (type(status) is not int or not 400 <= status <= 599):  # noqa: PLR2004
            raise BadCall(f"status={status!r} is no failure; give an HTTP status from 400 to 599")
        check_retry_after(retry_after)
        if retry_after is not None and status is None:
            raise BadCall("retry_after is what a server asks for; give it together with a status")
        return self._add(_FailCall(status, check_error(error), retry_after), model, when)

    def hang_call(self, model: str = "*", **when: Unpack[CallConditions]) -> Self:
        """Never answer a call, until a timeout or a cancellation ends it."""
        return self._add(_HangCall(), model, when)

    def delay_call(self, model: str = "*", *, seconds: Seconds, **when: Unpack[CallConditions]) -> Self:
        """Wait `seconds`, or a time out of that range, before a call is made."""
        return self._add(_DelayCall(check_seconds("seconds", seconds)), model, when)

    def garble_call(
        self, model: str = "*", *, garbage: Garbage = "noise", **when: Unpack[CallConditions]
    ) -> Self:
        """Answer a call with garbage, without making it."""
        if garbage not in get_args(Garbage):
            raise BadCall(f"garbage={garbage!r} is unknown; it must be one of {', '.join(get_args(Garbage))}")
        return self._add(_GarbleCall(garbage), model, when)

    def cut_stream(self, model: str = "*", *, pieces: int, **when: Unpack[CallConditions]) -> Self:
        """Break a stream off after this many `pieces` of text."""
        if type(pieces) is not int or pieces < 0:
            raise BadCall(f"pieces={pieces!r} is not allowed; give a whole number, 0 or more")
        return self._add(_CutStream(pieces), model, when)

    def slow_stream(self, model: str = "*", *, seconds: Seconds, **when: Unpack[CallConditions]) -> Self:
        """Wait `seconds`, or a time out of that range, before each piece of a stream."""
        return self._add(_SlowStream(check_seconds("seconds", seconds)), model, when)

    def around(self, model: str, adapter: ClientAdapter) -> ClientAdapter:
        """Return an adapter that injects the faults of this plan into the calls of `model`."""
        return _FaultyAdapter(model, adapter, self)


class _FaultyAdapter(ClientAdapter):
    """Injects faults into the calls of another adapter, and has the same properties."""

    def __init__(self, model: str, inner: ClientAdapter, plan: CallFaults) -> None:
        # The base's __init__ is not called: all that it would set up is in `inner`.
        self._model = model
        self._inner = inner
        self._plan = plan
        self._rules: tuple[Rule, ...] = ()  # about this model
        self._rules_seen = 0  # how many rules the plan had when `_rules` was made

    def __repr__(self) -> str:
        return repr(self._inner)

    @property
    def takes_system(self) -> bool:
        return self._inner.takes_system

    @property
    def is_own(self) -> bool:
        return self._inner.is_own

    @property
    def streams(self) -> bool:
        return self._inner.streams

    @property
    def option_names(self) -> frozenset[str] | None:
        return self._inner.option_names

    @property
    def context_window(self) -> int | None:
        return self._inner.context_window

    @property
    def info(self) -> ModelInfo:
        return self._inner.info

    @property
    def rate_limits(self) -> RateLimits | None:
        return self._inner.rate_limits

    @property
    def takes_conversations(self) -> bool:
        return self._inner.takes_conversations

    @property
    def reads_images(self) -> bool | None:
        return self._inner.reads_images

    @property
    def reads_files(self) -> bool | None:
        return self._inner.reads_files

    @property
    def takes_tools(self) -> bool:
        return self._inner.takes_tools

    @property
    def tells_finish_reason(self) -> bool:
        return self._inner.tells_finish_reason

    @property
    def cache_identity(self) -> str:
        return self._inner.cache_identity

    @property
    def origin(self) -> tuple[str | None, str | None]:
        return self._inner.origin

    @property
    def reads_context(self) -> ContextReads:
        return self._inner.reads_context

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def call(
        self,
        request: ModelRequest,
        *,
        on_text: OnText | None = None,
        on_usage: OnUsage | None = None,
        caller: Caller | None = None,
    ) -> Completion:
        streams = on_text is not None and self.streams
        adapter = self._inner
        stream = _StreamFaults(on_text) if on_text is not None and streams else None
        for rule in self._fired(streams=streams):
            match rule.fault:
                case _DelayCall(seconds):
                    await trio.sleep(draw_seconds(seconds, rule.random))
                case _HangCall():
                    await trio.sleep_forever()
                case _FailCall() as fault:
                    adapter = ClientAdapter(_failing(fault))
                case _GarbleCall(garbage):
                    adapter = ClientAdapter(_garbling(garbage, rule))
                case _CutStream(pieces) if stream is not None:
                    stream.cut_after = pieces
                case _SlowStream(seconds) if stream is not None:
                    stream.pace = lambda rule=rule, seconds=seconds: draw_seconds(seconds, rule.random)
        if stream is None or not stream.needed:
            return await adapter.call(request, on_text=on_text, on_usage=on_usage, caller=caller)
        return await stream.apply(
            lambda hear: adapter.call(request, on_text=hear, on_usage=on_usage, caller=caller)
        )

    def _fired(self, *, streams: bool) -> list[Rule]:
        plan = self._plan
        stage = current_stage.get()
        if self._rules_seen != len(plan.rules):
            self._rules_seen = len(plan.rules)
            self._rules = plan._rules_for("call", self._model)  # noqa: SLF001 - a part of the plan
        rules = [
            rule
            for rule in self._rules
            if rule.matches_stage(stage)
            and (streams or not isinstance(rule.fault, (_CutStream, _SlowStream)))
        ]
        fired = plan._fired(rules)  # noqa: SLF001
        for rule in fired:
            plan._record(rule, self._model)  # noqa: SLF001
        return fired


class _StreamFaults:
    """Cuts off or slows down the stream of one call."""

    def __init__(self, on_text: OnText) -> None:
        self._on_text = on_text
        self.cut_after: int | None = None
        self.pace: Callable[[], float] | None = None

    @property
    def needed(self) -> bool:
        """Whether the stream is to be cut off or slowed down."""
        return self.cut_after is not None or self.pace is not None

    async def apply(self, call: Callable[[OnText], Awaitable[Completion]]) -> Completion:
        """Await ``call(on_text)``, and pass on the pieces of text that come by `on_text`, with the faults."""
        if self.pace is None:
            return await self._cut(call, self._on_text)
        completion: Completion | None = None
        failure: ModelError | None = None
        send, receive = trio.open_memory_channel[str](inf)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._slow_down, receive, self.pace)
            with send:
                try:
                    completion = await self._cut(call, send.send_nowait)
                except ModelError as error:
                    failure = error
                    nursery.cancel_scope.cancel()
        if completion is None:
            raise failure or _broken_off()
        return completion

    async def _slow_down(self, pieces: trio.MemoryReceiveChannel[str], pace: Callable[[], float]) -> None:
        async for piece in pieces:
            if piece:
                await trio.sleep(pace())
            self._on_text(piece)

    async def _cut(self, call: Callable[[OnText], Awaitable[Completion]], on_text: OnText) -> Completion:
        if self.cut_after is None:
            return await call(on_text)
        left = self.cut_after

        def pass_on(text: str) -> None:
            nonlocal left
            if not text:
                on_text(text)  # a sign of life
                return
            if left:
                left -= 1
                on_text(text)
            if not left:
                scope.cancel()

        completion: Completion | None = None
        with trio.CancelScope() as scope:
            if left:
                completion = await call(pass_on)
        if completion is None or scope.cancel_called:
            raise _broken_off(completion)
        return completion


def _broken_off(completion: Completion | None = None) -> ModelError:
    usage = None if completion is None else completion.usage
    return ModelError("injected by a fault plan: the stream broke off", kind="connection", usage=usage)


def _failing(fault: _FailCall) -> Callable[[str], Awaitable[str]]:
    async def fail(prompt: str) -> str:  # noqa: ARG001 - a client takes one
        if fault.status is not None:
            raise InjectedStatus(fault.status, fault.retry_after)
        raise make_error(fault.error, "in a call")

    return fail


def _garbling(garbage: Garbage, rule: Rule) -> Callable[[str], Awaitable[object]]:
    answers = {
        "noise": "".join(rule.random.choices(printable, k=_NOISE_CHARACTERS)),
        "empty": "",
        "type": {"error": "injected by a fault plan"},
    }

    async def garble(prompt: str) -> object:  # noqa: ARG001 - a client takes one
        return answers[garbage]

    return garble
