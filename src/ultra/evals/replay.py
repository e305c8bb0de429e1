"""Running strategies over recorded answers: an orchestrator whose clients find them in the panel.

What is measured is so the product itself. The run takes place in virtual time, in which an answer takes the
seconds that it took when it was recorded; the schedule is seeded, so the same panel gives the same outcome.
A request whose answer is not recorded ends the run, and is told: it can be asked of the model, and the run
made again.
"""

from __future__ import annotations

from math import inf
from random import Random
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast, get_args

import trio
import trio.testing
from msgspec import Struct

from ultra.actors.model.breaker import BreakerPolicy
from ultra.actors.model.retry import RetryPolicy
from ultra.actors.model.timeouts import Timeouts
from ultra.clients.catalog.model_info import ModelInfo
from ultra.errors import ErrorKind, ModelError, UltraError, UsageError
from ultra.evals.arms import Outcome
from ultra.evals.panel import request_key
from ultra.messages.results import Completion, FinishReason, Usage, first_answers, sample_name
from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
from ultra.scoring.final_answers import equal_answers
from ultra.simulation.determinism import run_seeded
from ultra.simulation.one_seed import logging_off
from ultra.stores.memory import MemoryCache
from ultra.strategies.catalog import load_strategy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.evals.arms import Arm
    from ultra.evals.dataset import Question
    from ultra.evals.panel import Panel, PanelModel, Recorded
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import OrchestrationResult

__all__ = ["Missing", "Replayed", "Unrecorded", "replay"]

Unrecorded = Literal["stop", "fail"]
"""What becomes of a run that asks what is not recorded: it stops, or the model fails, as one that is down."""

_SECONDS: Final = 1.0
_TOKENS_A_SECOND: Final = 50.0
"""How long an answer takes whose seconds nobody measured: it decides only which answer comes first."""
_FORGIVING: Final = BreakerPolicy(consecutive_failures=None, failure_rate=None)
_ENDLESS: Final = Timeouts(attempt=inf, first_token=inf, idle=inf)


class Missing(NamedTuple):
    """A request whose answer is not recorded."""

    question: str
    model: str
    request: ModelRequest


class Replayed(NamedTuple):
    """What became of an arm: its outcomes by question, and the requests whose answers are missing."""

    outcomes: dict[str, Outcome]
    missing: list[Missing]


def replay(
    panel: Panel,
    arm: Arm,
    questions: Sequence[Question],
    *,
    settings: Mapping[str, Any] | None = None,
    unrecorded: Unrecorded = "stop",
) -> Replayed:
    """Run an arm over the recorded answers to these questions, one after the other, in virtual time.

    `settings` are keyword arguments of `MultiLLMOrchestrator` that hold for all arms. It must not be called
    within trio or asyncio, and no two threads may do so at the same time.
    """
    if not questions:
        return Replayed({}, [])
    with logging_off():
        player = _Player(panel, arm, settings or {}, unrecorded)
        run_seeded(player.play, questions, random=Random(f"{arm.name}/{len(questions)}"))
    return Replayed(player.outcomes, player.missing)


class _Ledger(Struct):
    """What the calls of one run came to."""

    calls: int = 0
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    cost: float | None = 0.0
    unrecorded: int = 0

    def pay(self, answer: Recorded, share: float) -> None:
        """Count a call of which this share was written when it ended; what it read counts whole."""
        self.input_tokens += answer.input_tokens
        self.output_tokens += answer.output_tokens * share
        if answer.cost is None:
            self.cost = None
        elif self.cost is not None:
            tokens = answer.input_tokens + answer.output_tokens
            written = answer.output_tokens / tokens if tokens else 1.0
            # How the cost divides between reading and writing is not recorded; the tokens stand for it.
            self.cost += answer.cost * (1 - written * (1 - share))


class _Player:
    """The orchestrator of one arm, and the run under way."""

    def __init__(self, panel: Panel, arm: Arm, settings: Mapping[str, Any], unrecorded: Unrecorded) -> None:
        self.panel = panel
        self.arm = arm
        self.fails = unrecorded == "fail"
        self.outcomes: dict[str, Outcome] = {}
        self.missing: list[Missing] = []
        self.question = ""
        self.ledger = _Ledger()
        self.stuck = trio.Event()
        self._strategy = load_strategy(arm.strategy, arm.options)
        self._orchestrator = MultiLLMOrchestrator(
            cache=_PanelCache(bytes.fromhex(panel.header.secret)),
            retry=RetryPolicy(max_retries=0),
            breaker=_FORGIVING,
            timeouts=_ENDLESS,
            system=panel.header.system,
            random=Random(0),
            **settings,
        )
        for name, model in panel.models.items():
            client = _ReplayClient(self, model)
            self._orchestrator.register_model(name, client, model.weight, price=model.price)

    async def play(self, questions: Sequence[Question]) -> None:
        """Run the arm on each question."""
        async with self._orchestrator:
            for question in questions:
                await self._play_one(question)

    async def _play_one(self, question: Question) -> None:
        self.question, self.ledger, self.stuck = question.id, _Ledger(), trio.Event()
        started = trio.current_time()
        result: OrchestrationResult | None = None
        failure: UltraError | None = None
        misuse: UsageError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_when_stuck, nursery.cancel_scope)
            try:
                result = await self._orchestrator.process_responses(
                    question.messages,
                    models=self.arm.models,
                    strategy=self._strategy,
                    use_cache=False,
                    output=question.schema,
                    **self.arm.run,
                )
            except UsageError as error:
                misuse = error
            except UltraError as error:
                failure = error
            nursery.cancel_scope.cancel()
        if misuse is not None:
            raise misuse  # outside of the nursery, so that it is no group
        if self.stuck.is_set():
            return
        self.outcomes[question.id] = self._outcome(result, failure, trio.current_time() - started)

    async def _stop_when_stuck(self, scope: trio.CancelScope) -> None:
        await self.stuck.wait()
        await trio.testing.wait_all_tasks_blocked()  # others of the same step are asked now, too
        scope.cancel()

    def _outcome(
        self, result: OrchestrationResult | None, failure: UltraError | None, seconds: float
    ) -> Outcome:
        answer = None if result is None else result.final_synthesis
        error = None if failure is None else str(failure).partition("\n")[0]
        if result is not None and answer is None:
            error = "it gave no answer"
        votes, voters = (None, None) if result is None else _votes(result)
        ledger = self.ledger
        return Outcome(
            text=None if answer is None else answer.content,
            calls=ledger.calls,
            input_tokens=ledger.input_tokens,
            output_tokens=ledger.output_tokens,
            cost=ledger.cost,
            seconds=seconds,
            confidence=None if result is None else result.confidence,
            votes=votes,
            voters=voters,
            degraded=result is not None and result.status == "degraded",
            error=error,
            unrecorded=ledger.unrecorded,
        )


class _ReplayClient:
    """Answers as it is recorded."""

    stream_response = None

    def __init__(self, player: _Player, model: PanelModel) -> None:
        self._player = player
        self._name = model.name
        self.cache_identity = f"recorded/{model.name}"
        self.reads_context = False
        self.context_window = model.context_window
        self.info = ModelInfo(context_window=model.context_window, output="schema")

    async def respond(self, request: ModelRequest) -> Completion:
        """Wait as long as the answer took, and return it, or raise as its model did."""
        player = self._player
        ledger = player.ledger
        answer = player.panel.find(player.question, self._name, request_key(request))
        if answer is None:
            if player.fails:
                ledger.unrecorded += 1
                raise ModelError("this answer is not recorded", retryable=False)
            player.missing.append(Missing(player.question, self._name, request))
            player.stuck.set()
            await trio.sleep_forever()
        ledger.calls += 1
        seconds = answer.seconds
        if not player.panel.header.timed:
            seconds = _SECONDS + answer.output_tokens / _TOKENS_A_SECOND
        began = trio.current_time()
        share = 1.0
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            share = (trio.current_time() - began) / seconds if seconds else 1.0
            raise
        finally:
            ledger.pay(answer, share)
        usage = Usage(input=answer.input_tokens, output=answer.output_tokens)
        if answer.text is None:
            kind = cast("ErrorKind", answer.kind) if answer.kind in get_args(ErrorKind) else "server"
            raise ModelError(answer.error or "it failed", kind=kind, retryable=False, usage=usage)
        known = answer.finish in get_args(FinishReason)
        finish = cast("FinishReason", answer.finish) if known else None
        return Completion(answer.text, usage=usage, finish_reason=finish)


class _PanelCache(MemoryCache):
    """A store whose secret is that of the panel, so that equal runs write equal prompts."""

    def __init__(self, secret: bytes) -> None:
        super().__init__()
        self._secret = secret


def _votes(result: OrchestrationResult) -> tuple[int | None, int | None]:
    """Return how many first answers have the final answer of the run, and how many there are."""
    first = first_answers(result.steps)
    if not first or result.final_synthesis is None:
        return None, None
    answers = {sample_name(each.model_name, each.sample): each.content for each in first}
    texts = [*answers.values(), result.final_synthesis.content]
    *finals, final = equal_answers(texts, result.prompt)
    if final is None:
        return None, len(finals)
    return finals.count(final), len(finals)
