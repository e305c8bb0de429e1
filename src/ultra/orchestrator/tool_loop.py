"""Runs and calls of tools, in turns, until an answer comes."""

from __future__ import annotations

import time
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import trio
from msgspec import Struct

from ultra._support.async_library import in_trio
from ultra._support.checks import check_count
from ultra._support.randomness import new_id
from ultra.bridge.caller import Caller
from ultra.errors import BadCall, DeadlineExceeded, UltraError
from ultra.messages.conversation import conversation_of
from ultra.messages.options import RunArguments
from ultra.messages.tool_run import ToolRun
from ultra.messages.tools import ToolChoice
from ultra.orchestrator.overridden import OverriddenRun, check_takes, outer_run
from ultra.orchestrator.streams import RunStream
from ultra.orchestrator.tool_functions import ToolFunctions
from ultra.strategies.base import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from ultra.bridge.trio_run import TrioRun
    from ultra.messages.chat import ChatMessage
    from ultra.messages.conversation import Conversation
    from ultra.messages.events import Event
    from ultra.messages.results import OrchestrationResult
    from ultra.strategies.base import RunContext, Strategy, StrategySpec
    from ultra.strategies.stages import Stage

__all__ = ["FinalBy", "ToolArguments", "ToolLoop", "ToolModel", "ToolStream"]

_MAX_TURNS = 8

FinalBy = Literal["model", "ensemble"]
"""Who writes the answer of `run_tools`.

model: the model that called the tools, and no other is asked. ensemble: all, by the strategy of the run.
"""


class ToolArguments(RunArguments, total=False):
    """The arguments of `run_tools`, beside prompt and functions; see `RunArguments` for the others.

    The model that makes the first calls has the later turns, too, while it answers (`primary`). `tool_choice`
    is for the first turn. `timeout` and `max_cost` are for all turns together; once the budget is used up,
    the latest calls are not made, and a notice says so. All else is for each run.

    Attributes:
        max_turns: in how many turns tools may be called, by default 8. After them, there is one more run
            without tools, for an answer.
        final: who writes the answer: the ``"model"`` that had the tools, or the ``"ensemble"``.
        models: the names of the models that may be asked; None: all.
        stages, strategy: how the ensemble answers; see `process_responses`.
    """

    max_turns: int
    final: FinalBy
    models: Sequence[str] | None
    stages: Sequence[str | Stage] | None
    strategy: str | StrategySpec | Strategy | None


class ToolModel(Struct, frozen=True):
    """Take the answer of the model that had the tools, or else of `name`; where it fails, of the next."""

    name: str | None = None

    async def run(self, context: RunContext) -> Answer:
        """Ask until one answers; see `Strategy.run`."""
        answered = [each.model_name for step in context.steps for each in step.responses]
        models = sorted(context.models, key=lambda model: model.name not in (answered or {self.name}))
        with context.step("initial") as step:
            response = await context.ask_first(context.request, models=models, required=True)
        return Answer(response, "fallback" if step.failures else "primary")


class ToolLoop:
    """The turns of one `run_tools`.

    Args:
        process: `process_responses` of the orchestrator.
        trio_run: where functions are waited for.
        functions: what models may call.
        given: the arguments of the call.

    Raises:
        BadCall: an argument is not allowed.
    """

    def __init__(
        self,
        process: Callable[..., Awaitable[OrchestrationResult]],
        trio_run: TrioRun,
        functions: object,
        given: ToolArguments,
    ) -> None:
        run: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self._max_turns: int = run.pop("max_turns", _MAX_TURNS)
        self._final: FinalBy = run.pop("final", "model")
        check_count("max_turns", self._max_turns)
        if self._final not in get_args(FinalBy):
            choices = ", ".join(map(repr, get_args(FinalBy)))
            raise BadCall(f"final is {self._final!r}; it must be one of: {choices}")
        if "tools" in run:
            raise BadCall("run_tools has its functions as tools; leave tools= out, and give it functions")
        if self._final == "model":
            self._check_final(run)
        self._functions = ToolFunctions(functions)
        self._process = process
        self._trio_run = trio_run
        self._given = run
        self._messages: list[ChatMessage] = []
        self._turns: list[OrchestrationResult] = []
        self.ended: ToolRun | None = None
        check_takes(process, {**self.first_run, "primary": None}, "run tools")  # later turns name a primary

    @staticmethod
    def _check_final(run: dict[str, Any]) -> None:
        for name in ("stages", "strategy"):
            if name in run:
                raise BadCall(f"{name} is how the ensemble answers; give final='ensemble' with it")
        if run.get("tool_policy") == "judge":
            raise BadCall(
                "tool_policy is 'judge': the writer of a synthesis calls the tools; give final='ensemble'"
            )

    @property
    def first_run(self) -> dict[str, Any]:
        """The arguments of the first run."""
        return self._arguments(inf)

    async def run(self, prompt: Conversation) -> ToolRun:
        """Take the turns, on the loop of the caller.

        Raises:
            DeadlineExceeded: the time was over before there was an answer.
            Exception: what `process_responses` raises; `tool_run` of an `UltraError` has the turns before it.
        """
        now = trio.current_time if in_trio() else time.monotonic
        started = now()
        self._messages += conversation_of(prompt)
        try:
            await self._take_turns(now)
        except UltraError as error:
            if self._turns:
                error.tool_run = self._taken(now() - started)
            raise
        ended = self.ended = self._taken(now() - started)
        return ended

    async def process(self, prompt: Conversation) -> OrchestrationResult:
        """Take the turns, and return the result of the last; `ended` has the rest."""
        return (await self.run(prompt)).result

    # --- inside ----------------------------------------------------------------------------------------

    async def _take_turns(self, now: Callable[[], float]) -> None:
        timeout: float | None = self._given.get("timeout")
        until = inf if timeout is None else now() + timeout
        outer = outer_run.get()
        emit: Callable[[Event], None] = _unheard if outer is None else outer.emit
        while True:
            left = until - now()
            if left <= 0:
                raise DeadlineExceeded(f"run_tools has {timeout:g} s in all, and no answer has come")
            result = await self._process(self._messages, **self._arguments(left))
            if len(self._turns) == self._max_turns:
                _degrade(
                    result,
                    f"after {self._max_turns} turns with calls of tools, the answer was asked for without "
                    "tools",
                )
            self._turns.append(result)
            message = [] if result.final_synthesis is None else [result.final_synthesis.message]
            if not result.tool_calls or self._is_spent(result):
                self._messages += message
                return
            answer = partial(
                self._functions.answer,
                result.tool_calls,
                Caller.current(),
                emit,
                turn=len(self._turns) - 1,
                within=max(0.0, until - now()),
            )
            # Together, so that no call stands there without its result, whatever happens in between.
            self._messages += [*message, *await self._trio_run.run(answer)]

    def _taken(self, seconds: float) -> ToolRun:
        return ToolRun(
            messages=tuple(self._messages),
            turns=tuple(self._turns),
            response_time=seconds,
            cost=self._cost,
        )

    @property
    def _cost(self) -> float | None:
        costs = [turn.cost for turn in self._turns if turn.cost is not None]
        return sum(costs) if costs else None

    def _arguments(self, left: float) -> dict[str, Any]:
        """Return the arguments of the next run, which has so many seconds."""
        run, turn = dict(self._given), len(self._turns)
        run["tools"] = self._functions.tools
        caller = next((each.final_synthesis for each in reversed(self._turns) if each.final_synthesis), None)
        if left < inf:
            run["timeout"] = left
        if caller is not None:
            run["primary"] = caller.model_name
            run.pop("tool_choice", None)  # a call that must be made in each turn would never end
        if run.get("max_cost") is not None:
            run["max_cost"] -= self._cost or 0.0
        if turn >= self._max_turns:
            run["tool_choice"] = ToolChoice("none")
        if self._final == "model":
            run["strategy"] = ToolModel(run.get("primary"))
        return run

    def _is_spent(self, result: OrchestrationResult) -> bool:
        """Return whether no further run can be paid, and tell so in the result."""
        limit = self._given.get("max_cost")
        if limit is None or (self._cost or 0.0) < limit:
            return False
        _degrade(
            result,
            f"the calls of tools were not made: the turns have cost {self._cost:.4g} dollars, and may cost "
            f"{limit:g}",
        )
        return True


class ToolStream:
    """The events of one `run_tools`, made by `MultiLLMOrchestrator.stream_tools`.

    ::

        async with orchestrator.stream_tools("…", [weather]) as run:
            async for event in run:
                print(event)
            answer = (await run.result()).final_synthesis

    Iterate over it for the events of all its runs, `ToolStarted` and `ToolEnded` among them; rounds count on
    from run to run. The last event is one `RunCompleted`, with the result of the last run, or `RunFailed`.
    Leaving the block cancels runs and functions.
    """

    def __init__(self, loop: ToolLoop, prompt: Conversation) -> None:
        self.run_id = new_id()
        self._loop = loop
        self._stream = RunStream(self.run_id, OverriddenRun(self.run_id, loop.process, prompt, {}))

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stream.__aexit__(kind, error, trace)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self._stream.__anext__()

    async def result(self) -> ToolRun:
        """Wait for the end, and return what `run_tools` returns, or raise what it raises."""
        await self._stream.result()
        ended = self._loop.ended
        assert ended is not None  # noqa: S101 - the stream has a result
        return ended


def _degrade(result: OrchestrationResult, notice: str) -> None:
    result.status = "degraded"
    result.notices.append(notice)


def _unheard(_: Event) -> None:
    """Nobody listens."""
