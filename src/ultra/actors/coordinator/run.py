"""One run of the pipeline: asks the models stage by stage, and decides when to go on.

A run has one deadline. Each stage may use the time that is left but for the shares that the stages
after it keep; at its end the run goes on with what has arrived, if the quorum stands.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ultra.actors.model.actor import Generate
from ultra.actors.runtime.ask_group import AskGroup
from ultra.errors import (
    ActorDown,
    AllAttemptsFailed,
    DeadlineExceeded,
    ModelError,
    ModelUnregistered,
    QuorumNotReached,
    UltraError,
)
from ultra.messages.events import (
    Event,
    ModelFailed,
    ModelResponded,
    ModelRetrying,
    ModelStarted,
    PromptFitted,
    StageCompleted,
    StageStarted,
)
from ultra.messages.results import ModelFailure, ModelResponse, OrchestrationResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from ultra.actors.coordinator.plan import RunPlan, StagePlan, Target, Write
    from ultra.actors.runtime.ask_group import AskResult
    from ultra.messages.results import SynthesisSource
    from ultra.prompts.fencing import Labelled

__all__ = ["Run", "until"]


class Run:
    """The state of one run.

    `responses` has the answers so far, by stage and model, in weight order; `labelled` those of a stage as
    they were first read.
    """

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.responses: dict[str, dict[str, ModelResponse]] = {}
        self.failures: list[ModelFailure] = []
        self.notices: list[str] = []
        self.labelled: dict[str, Labelled] = {}
        self.judge_cost: float | None = None
        self._left_out = False
        self._unusable: dict[str, None] = {}
        self._synthesis: ModelResponse | None = None
        self._source: SynthesisSource | None = None

    async def execute(self) -> OrchestrationResult:
        """Run all stages.

        Raises:
            QuorumNotReached: too few models answered a stage that the run cannot do without.
            StageFailed: the user's own code for a stage raised.
        """
        plan = self.plan
        for stage, (answers_due, end) in zip(plan.stages, plan.deadlines(), strict=True):
            if plan.max_cost < inf and self._cost() >= plan.max_cost:
                self._leave_out(stage)
                continue
            if stage.asks == "all":
                failed = await self._ask_all(stage, answers_due)
            else:
                failed = await self._ask_in_turn(stage, answers_due)
            await self._complete(stage, failed, end)
        degraded = bool(self.failures) or self._left_out or self._source in {"fallback", "best_candidate"}
        return OrchestrationResult(
            run_id=plan.run_id,
            prompt=plan.question,
            stages=self.responses,
            final_synthesis=self._synthesis,
            synthesis_source=self._source,
            status="degraded" if degraded else "success",
            failures=self.failures,
            notices=self.notices,
            metrics={target.name: target.model.metrics.snapshot() for target in plan.targets},
            response_time=trio.current_time() - plan.started,
            cost=self._cost() if self._has_prices() else None,
        )

    def _cost(self) -> float:
        """The dollars that the answers, and the judge's grades of them, have cost so far."""
        return (self.judge_cost or 0.0) + sum(
            response.cost or 0.0 for answers in self.responses.values() for response in answers.values()
        )

    def _has_prices(self) -> bool:
        priced = any(target.model.price is not None for target in self.plan.targets)
        return priced or self.judge_cost is not None

    def _leave_out(self, stage: StagePlan) -> None:
        self._left_out = True
        self.responses[stage.name] = {}
        self.notices.append(
            f"stage {stage.name!r} was left out: the run has cost {self._cost():.4g} dollars, "
            f"and may cost {self.plan.max_cost:g}"
        )
        if stage.final:
            self._settle_synthesis(stage, None, fallback=False)

    async def _complete(self, stage: StagePlan, failed: Sequence[str], end: float) -> None:
        answers = self.responses[stage.name]
        quality = await self._score(stage, end) if stage.scored and answers else {}
        self._emit(
            StageCompleted, stage=stage.name, answered=tuple(answers), failed=tuple(failed), quality=quality
        )

    async def _score(self, stage: StagePlan, end: float) -> dict[str, float]:
        """Score the answers of a stage, and write the scores into them and into the metrics."""
        scores = await self.plan.score(self, stage, end) if self.plan.score is not None else {}
        answers = self.responses[stage.name]
        quality: dict[str, float] = {}
        for target in self.plan.targets:
            name = target.name
            if name in answers and name in scores:
                quality[name] = scores[name]
                answers[name] = replace(answers[name], quality=scores[name])
                target.model.metrics.scored(scores[name])
        return quality

    # --- a stage that asks all -----------------------------------------------------------------------

    async def _ask_all(self, stage: StagePlan, deadline: float) -> list[str]:
        """Ask all models at once; returns the names of those that failed."""
        targets = self._begin(stage, self.plan.targets)
        write = stage.compose(self)
        answers: dict[str, ModelResponse] = {}
        failed: list[str] = []

        def take(reply: AskResult[Target, ModelResponse]) -> None:
            if reply.value is not None:
                answers[reply.key.name] = self._answered(stage, reply.key, reply.value)
            elif reply.error is not None:
                failed.append(self._failed(stage, reply.key, reply.error))

        asks: AskGroup[Target, ModelResponse] = AskGroup()
        with asks:
            for target in targets:
                try:
                    request = self._request(stage, write, target, deadline)
                except ModelError as error:  # the texts to read do not fit into this model's window
                    failed.append(self._failed(stage, target, error))
                else:
                    asks.ask(target.ref, request, target)
            with until(deadline):
                while len(asks):
                    take(await asks.next())
                    for reply in asks.arrived():  # equal calls end together: one wake-up for all of them
                        take(reply)
            for reply in asks.arrived():
                take(reply)
            failed += [self._failed(stage, target, self._too_late(target)) for target in asks.unanswered]
        self.responses[stage.name] = {
            target.name: answers[target.name] for target in targets if target.name in answers
        }
        self._check_quorum(stage)
        return failed

    def _check_quorum(self, stage: StagePlan) -> None:
        strict = self.plan.quorum == "all"
        needed = len(self.plan.targets) if self.plan.quorum == "all" else self.plan.quorum
        if len(self.responses[stage.name]) < needed and (strict or not stage.optional):
            raise self._quorum_missed(stage, needed)

    def _quorum_missed(self, stage: StagePlan, needed: int) -> QuorumNotReached:
        failures = {failure.model_name: failure.message for failure in self.failures}
        return QuorumNotReached(stage.name, needed, len(self.responses[stage.name]), failures.items())

    # --- a stage that asks one after the other -------------------------------------------------------

    async def _ask_in_turn(self, stage: StagePlan, deadline: float) -> list[str]:
        """Ask one model after the other until one answers; returns the names of those that failed."""
        answerers = self.responses[stage.reads] if stage.reads is not None else None
        targets = self._begin(
            stage, [t for t in self.plan.targets if answerers is None or t.name in answerers]
        )
        failed: list[str] = []
        answer = await self._first_answer(stage, targets, deadline, failed) if targets else None
        self.responses[stage.name] = {answer.model_name: answer} if answer is not None else {}
        if stage.final:
            self._settle_synthesis(stage, answer, fallback=bool(failed))
        elif answer is None and not stage.optional:
            raise self._quorum_missed(stage, 1)
        return failed

    async def _first_answer(
        self, stage: StagePlan, targets: Sequence[Target], deadline: float, failed: list[str]
    ) -> ModelResponse | None:
        """The answer of the first of `targets` that gives one; `failed` gets those that did not."""
        write = stage.compose(self)
        for number, target in enumerate(targets, start=1):
            # Half of what is left, while there is somebody else to ask: a model that hangs must not
            # take the time of those who would answer.
            now = trio.current_time()
            until = deadline if number == len(targets) else now + (deadline - now) / 2
            try:
                answer = await self._ask_one(self._request(stage, write, target, until), target)
            except UltraError as error:
                failed.append(self._failed(stage, target, error))
            else:
                return self._answered(stage, target, answer)
        return None

    async def _ask_one(self, request: Generate, target: Target) -> ModelResponse:
        with until(request.deadline):
            return await target.ref.ask(request)
        raise self._too_late(target)

    def _settle_synthesis(self, stage: StagePlan, answer: ModelResponse | None, *, fallback: bool) -> None:
        if answer is not None:
            self._source = "fallback" if fallback else "primary"
            self._synthesis = answer
            return
        # The newest stage that it could be about is the one that it reads; that may be empty if optional.
        stages = [self.responses[stage.reads]] if stage.reads is not None else []
        stages += [answers for name, answers in self.responses.items() if name != stage.name]
        candidates = next((answers for answers in stages if answers), None)
        if candidates is None:
            raise self._quorum_missed(stage, 1)
        self._source = "best_candidate"
        self._synthesis = max(candidates.values(), key=lambda response: response.quality or 0.0)
        failed = "" if self._left_out else "no model could write the synthesis; "
        self.notices.append(f"{failed}the best candidate stands in its place")

    # --- one request and its end ---------------------------------------------------------------------

    def _begin(self, stage: StagePlan, targets: Sequence[Target]) -> list[Target]:
        """Tell that `stage` begins; returns those of `targets` that it is of use to ask."""
        usable = [target for target in targets if target.name not in self._unusable]
        models = tuple(target.name for target in usable)
        self._emit(StageStarted, stage=stage.name, models=models, asks=stage.asks)
        return usable

    def _request(self, stage: StagePlan, write: Write, target: Target, deadline: float) -> Generate:
        prompt, plan, sink = write(target), self.plan, self.plan.sink
        if sink is not None:
            self._emit(ModelStarted, stage=stage.name, model_name=target.name)
        if prompt.cuts:
            self._tell_of_cuts(stage, target, prompt.cuts)
        return Generate(
            prompt=prompt.user,
            stage=stage.name,
            system=prompt.system,
            options=plan.options,
            use_cache=plan.use_cache,
            deadline=deadline,
            on_chunk=None if sink is None else partial(sink.chunk, stage.name, target.name),
            on_retry=None if sink is None else partial(self._retrying, stage, target),
            caller=plan.caller,
        )

    def _tell_of_cuts(self, stage: StagePlan, target: Target, cuts: Mapping[str, int]) -> None:
        parts = ", ".join(f"{part} by about {tokens} tokens" for part, tokens in cuts.items())
        self.notices.append(f"cut to fit the context window of {target.name!r} in {stage.name!r}: {parts}")
        self._emit(PromptFitted, stage=stage.name, model_name=target.name, cut=dict(cuts))

    def _retrying(
        self, stage: StagePlan, target: Target, attempt: int, error: ModelError, wait: float
    ) -> None:
        self._emit(
            ModelRetrying,
            stage=stage.name,
            model_name=target.name,
            attempt=attempt,
            wait=wait,
            kind=error.kind,
            message=str(error),
        )

    def _answered(self, stage: StagePlan, target: Target, response: ModelResponse) -> ModelResponse:
        if self.plan.sink is not None:
            self._emit(ModelResponded, stage=stage.name, model_name=target.name, response=response)
        return response

    def _failed(self, stage: StagePlan, target: Target, error: Exception) -> str:
        """Take note of a model's failure; returns the model's name."""
        error = target.model.explain(error)
        cause = error.__cause__ if isinstance(error, AllAttemptsFailed) else error
        kind = cause.kind if isinstance(cause, ModelError) else None
        if kind in {"auth", "quota"} or isinstance(error, (ActorDown, ModelUnregistered)):
            self._unusable[target.name] = None  # asking it again in this run cannot help
        failure = ModelFailure(
            model_name=target.name,
            stage=stage.name,
            message=str(error),
            error=type(cause).__name__,
            kind=kind,
            attempts=error.attempts if isinstance(error, AllAttemptsFailed) else 0,
            response_time=trio.current_time() - self.plan.started,
        )
        self.failures.append(failure)
        self._emit(ModelFailed, stage=stage.name, model_name=target.name, failure=failure)
        return target.name

    def _too_late(self, target: Target) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"Model {target.name!r} did not answer in time; the run has {self.plan.timeout:g} s in all"
        )

    def _emit(self, event: type[Event], **fields: object) -> None:
        if self.plan.sink is not None:
            self.plan.sink.emit(event, **fields)


_FOREVER: AbstractContextManager[object] = nullcontext()


def until(deadline: float) -> AbstractContextManager[object]:
    """A block that is cancelled at `deadline` (`trio.current_time`); a run without one pays for no scope."""
    return _FOREVER if deadline == inf else trio.CancelScope(deadline=deadline)
