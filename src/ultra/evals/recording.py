"""Asking the models what is not recorded yet, and recording each answer as it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from msgspec import Struct

from ultra.errors import AllAttemptsFailed, ModelError, UltraError, UsageError
from ultra.evals.panel import Recorded, request_key
from ultra.strategies.base import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ultra.evals.panel import Panel
    from ultra.evals.replay import Missing
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import ModelResponse
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
    from ultra.strategies.base import RunContext

__all__ = ["CONCURRENCY", "Progress", "Recorder"]

CONCURRENCY: Final = 8


class Progress(Struct, frozen=True, kw_only=True):
    """How far a recording is: `done` of `total` requests that are known so far, dollars, and seconds.

    `cost_left` and `seconds_left` are what the others take if they are as those that were asked; None: that
    cannot be said yet.
    """

    done: int
    total: int
    cost: float
    cost_left: float | None
    seconds_left: float | None


class Recorder:
    """Asks an orchestrator, and adds what its models say to a panel.

    Retries, limits, timeouts and hedges are the orchestrator's. Answers are never taken from its cache.

    Args:
        panel: what the answers are added to.
        make: returns the orchestrator; it is called for each round of requests.
        max_cost: dollars for all that this recorder asks; None: no limit. Calls that are under way when it is
            reached are let end.
        concurrency: how many requests are under way at most.
        on_progress: called after each answer.
    """

    def __init__(
        self,
        panel: Panel,
        make: Callable[[], MultiLLMOrchestrator],
        *,
        max_cost: float | None = None,
        concurrency: int = CONCURRENCY,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._panel = panel
        self._make = make
        self._max_cost = max_cost
        self._concurrency = concurrency
        self._on_progress = on_progress
        self.asked = 0
        self.cost = 0.0
        self._seconds = 0.0
        self._under_way = 0
        self._stopped = False
        self._running: tuple[trio.lowlevel.TrioToken, trio.CancelScope] | None = None

    @property
    def models(self) -> Sequence[str]:
        """The names of all models that can be asked, of the panel or not."""
        return self._make().get_prioritized_models()

    def stop(self) -> None:
        """Cancel the calls under way, and let no more begin; a signal handler may call this."""
        self._stopped = True
        if self._running is not None:
            token, scope = self._running
            token.run_sync_soon(scope.cancel)

    @property
    def is_spent(self) -> bool:
        """Whether no further request may be made."""
        if self._max_cost is None:
            return False
        each = self.cost / self.asked if self.asked else 0.0
        return self.cost + each * self._under_way >= self._max_cost

    async def record(self, missing: Sequence[Missing]) -> bool:
        """Ask all that is missing, each request once; return whether all of it was asked.

        Cancelling this loses only the calls under way.
        """
        wanted = {(each.question, each.model, request_key(each.request)): each for each in missing}
        waiting = list(reversed(wanted.items()))
        total = self.asked + len(waiting)
        orchestrator = self._make()
        began, before = trio.current_time(), self.asked

        async def work() -> None:
            while waiting and not (self.is_spent or self._stopped):
                (question, model, key), request = waiting.pop()
                self._under_way += 1
                try:
                    answer = await _asked(orchestrator, model, key, request.request)
                finally:
                    self._under_way -= 1
                self._panel.add(question, answer)
                self.asked += 1
                self.cost += answer.cost or 0.0
                self._tell(total, (trio.current_time() - began) / (self.asked - before))

        # Inside the orchestrator: its actors end in order, whatever stops the work.
        async with orchestrator:
            with trio.CancelScope() as scope:
                self._running = trio.lowlevel.current_trio_token(), scope
                try:
                    async with trio.open_nursery() as nursery:
                        for _ in range(min(self._concurrency, len(waiting))):
                            nursery.start_soon(work)
                finally:
                    self._running = None
        return not (waiting or self._stopped)

    def _tell(self, total: int, seconds_each: float) -> None:
        left = total - self.asked
        self._on_progress(
            Progress(
                done=self.asked,
                total=total,
                cost=self.cost,
                cost_left=self.cost / self.asked * left,
                seconds_left=seconds_each * left,
            )
        )


async def _asked(orchestrator: MultiLLMOrchestrator, model: str, key: str, request: ModelRequest) -> Recorded:
    """Ask one model, and return what it said, or how it failed."""
    strategy = _AsIs(request)
    began = trio.current_time()
    try:
        await orchestrator.process_responses("?", models=[model], strategy=strategy, use_cache=False)
    except UsageError:
        raise
    except UltraError as error:
        if strategy.response is None:
            return _failure(model, key, request, error, trio.current_time() - began)
    response = strategy.response
    if response is None:
        failure = strategy.failure or UltraError("it gave no answer")
        return _failure(model, key, request, failure, trio.current_time() - began)
    usage = response.usage.plus(response.lost_usage)
    return Recorded(
        model=model,
        key=key,
        text=response.content,
        sample=request.sample,
        input_tokens=usage.input or 0,
        output_tokens=usage.output or 0,
        cost=response.cost,
        seconds=response.response_time,
        attempts=response.attempts,
        finish=response.finish_reason,
    )


def _failure(model: str, key: str, request: ModelRequest, error: UltraError, seconds: float) -> Recorded:
    found = error if isinstance(error, AllAttemptsFailed) else None
    cause = error if found is None else found.__cause__
    usage = getattr(found, "usage", None)
    return Recorded(
        model=model,
        key=key,
        sample=request.sample,
        error=str(cause or error)[:400],
        kind=cause.kind if isinstance(cause, ModelError) else None,
        attempts=1 if found is None else found.attempts,
        seconds=seconds,
        cost=0.0 if found is None else found.cost or 0.0,
        input_tokens=getattr(usage, "input", None) or 0,
        output_tokens=getattr(usage, "output", None) or 0,
    )


class _AsIs:
    """A strategy that sends one request as it is."""

    def __init__(self, request: ModelRequest) -> None:
        self._request = request
        self.response: ModelResponse | None = None
        self.failure: UltraError | None = None

    async def run(self, context: RunContext) -> Answer:
        """See `Strategy.run`."""
        with context.step("initial"):
            try:
                self.response = await context.ask(context.models[0], self._request)
            except UltraError as error:
                self.failure = error
        return Answer(self.response)
