"""One run of the pipeline: which stage asks whom, what is done with the answers, when to go on.

A run has one deadline. Each stage may use the time that is left but for the shares that the stages
after it keep; at its end the run goes on with what has arrived, if the quorum stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Literal, Protocol

import trio
from msgspec import Struct
from msgspec.structs import replace

from ultra.actors.actor import ActorRef
from ultra.actors.group import AskGroup
from ultra.actors.model import Generate, RegisteredModel
from ultra.errors import (
    ActorDown,
    AllAttemptsFailed,
    DeadlineExceeded,
    ModelError,
    QuorumNotReached,
    StageFailed,
    UltraError,
)
from ultra.events import (
    Chunk,
    Event,
    ModelFailed,
    ModelResponded,
    ModelStarted,
    PromptFitted,
    StageCompleted,
    StageStarted,
)
from ultra.messages import ModelFailure, ModelResponse, OrchestrationResult

if TYPE_CHECKING:
    from ultra.actors.flight import OnChunk

__all__ = [
    "Compose",
    "ComposedPrompt",
    "EventSink",
    "JudgePlan",
    "Run",
    "RunPlan",
    "Score",
    "StagePlan",
    "Target",
]


class Target(Struct, frozen=True):
    """A model that a run may ask, and the actor that answers for it."""

    model: RegisteredModel
    ref: ActorRef

    @property
    def name(self) -> str:
        """The name that the model was registered under."""
        return self.model.name


Compose = Callable[["Run", Target], "ComposedPrompt"]
"""Writes a stage's prompt for one of the models that it asks."""

Score = Callable[[str, Mapping[str, str]], Mapping[str, float]]
"""Scores (0..1) answers, by model name, to a question; leaves out what it cannot score."""


class ComposedPrompt(Struct, frozen=True):
    """What a stage asks one model. `cuts` says, part by part, how many tokens had to go to make it fit."""

    user: str
    system: str | None = None
    cuts: Mapping[str, int] = {}


class JudgePlan(Struct, frozen=True):
    """Another model that scores answers: what it is asked, and how its reply is read."""

    target: Target
    compose: Callable[["Run", Target], tuple[ComposedPrompt, Callable[[str], Mapping[str, float]]]]


class StagePlan(Struct, frozen=True, kw_only=True):
    """One stage. `asks` all models at once, or one after the other until the first answers.

    `reads` is the earlier stage whose answers it is about; those who gave them are the ones to ask one
    after the other. `optional`: the run goes on, degraded, if it fails. `final`: its answer is the
    synthesis, and where nobody gives one, the best answer of `reads` stands in. `share` of the run's
    time is kept for it while earlier stages run.
    """

    name: str
    compose: Compose
    asks: Literal["all", "first"] = "all"
    reads: str | None = None
    optional: bool = False
    final: bool = False
    scored: bool = False
    share: float = 0.0


class RunPlan(Struct, frozen=True, kw_only=True):
    """All that a run is to do. `targets` are in weight order; `timeout` is seconds, for all of it."""

    run_id: str
    question: str
    stages: tuple[StagePlan, ...]
    targets: tuple[Target, ...]
    quorum: int | Literal["all"] = 1
    timeout: float = inf
    use_cache: bool = True
    options: Mapping[str, object]
    score: Score | None = None
    judge: JudgePlan | None = None
    sink: EventSink | None = None


class EventSink(Protocol):
    """Where the events of one run go."""

    def emit(self, event: type[Event], **fields: object) -> None:
        """Tell of one event; the sink numbers and times it. Must return at once and not raise."""


class Run:
    """The state of one run. `responses` has the answers so far, by stage and model, in weight order."""

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.responses: dict[str, dict[str, ModelResponse]] = {}
        self.failures: list[ModelFailure] = []
        self.notices: list[str] = []
        self._started = trio.current_time()
        self._unusable: set[str] = set()
        self._synthesis: ModelResponse | None = None
        self._source: Literal["primary", "fallback", "best_candidate"] | None = None

    async def execute(self) -> OrchestrationResult:
        """Run all stages.

        Raises:
            QuorumNotReached: too few models answered a stage that the run cannot do without.
        """
        for number, stage in enumerate(self.plan.stages):
            if stage.asks == "all":
                await self._ask_all(stage, self._deadline(number))
            else:
                await self._ask_in_turn(stage, self._deadline(number))
        degraded = bool(self.failures) or self._source in {"fallback", "best_candidate"}
        return OrchestrationResult(
            run_id=self.plan.run_id,
            prompt=self.plan.question,
            stages=self.responses,
            final_synthesis=self._synthesis,
            synthesis_source=self._source,
            status="degraded" if degraded else "success",
            failures=self.failures,
            notices=self.notices,
            metrics={target.name: target.model.metrics.snapshot() for target in self.plan.targets},
            response_time=trio.current_time() - self._started,
        )

    def _deadline(self, number: int) -> float:
        """When the stage with this number has to end: what the later ones keep for themselves is theirs."""
        kept = sum(stage.share for stage in self.plan.stages[number + 1 :])
        return self._started + self.plan.timeout * (1 - min(kept, 0.8))

    # --- a stage that asks all -----------------------------------------------------------------------

    async def _ask_all(self, stage: StagePlan, deadline: float) -> None:
        targets = [target for target in self.plan.targets if target.name not in self._unusable]
        self._emit(StageStarted, stage=stage.name, models=tuple(target.name for target in targets))
        answers: dict[str, ModelResponse] = {}
        failed: dict[str, str] = {}
        with AskGroup[Target, ModelResponse]() as asks:
            for target in targets:
                try:
                    request = self._request(stage, target, deadline)
                except ModelError as error:  # the texts to read do not fit into this model's window
                    failed[target.name] = self._failed(stage, target, error)
                else:
                    asks.ask(target.ref, request, target)
            with trio.CancelScope(deadline=deadline):
                while len(asks):
                    reply = await asks.next()
                    if reply.value is not None:
                        answers[reply.key.name] = self._answered(stage, reply.key, reply.value)
                    elif reply.error is not None:
                        failed[reply.key.name] = self._failed(stage, reply.key, reply.error)
            for target in asks.unanswered:
                failed[target.name] = self._failed(stage, target, self._too_late(target))
        ordered = {target.name: answers[target.name] for target in targets if target.name in answers}
        self.responses[stage.name] = ordered
        self._check_quorum(stage, failed)
        quality = await self._score(stage, deadline) if stage.scored else {}
        self._emit(
            StageCompleted, stage=stage.name, answered=tuple(ordered), failed=tuple(failed), quality=quality
        )

    def _check_quorum(self, stage: StagePlan, failed: Mapping[str, str]) -> None:
        strict = self.plan.quorum == "all"
        needed = len(self.plan.targets) if self.plan.quorum == "all" else self.plan.quorum
        answered = len(self.responses[stage.name])
        if answered < needed and (strict or not stage.optional):
            earlier = {failure.model_name: failure.message for failure in self.failures}
            raise QuorumNotReached(stage.name, needed, answered, {**earlier, **failed}.items())

    async def _score(self, stage: StagePlan, deadline: float) -> dict[str, float]:
        """Score the answers of a stage, and write the scores into them and into the metrics."""
        answers = self.responses[stage.name]
        quality: dict[str, float] = {}
        if self.plan.score is not None:
            texts = {name: response.content for name, response in answers.items()}
            try:
                quality.update(self.plan.score(self.plan.question, texts))
            except Exception as error:
                raise StageFailed(stage.name, "the scorer", error) from error
        if self.plan.judge is not None:
            quality.update(await self._judge(self.plan.judge, deadline))
        for target in self.plan.targets:
            score = quality.get(target.name)
            if score is not None and target.name in answers:
                answers[target.name] = replace(answers[target.name], quality=score)
                target.model.metrics.scored(score)
        return quality

    async def _judge(self, judge: JudgePlan, deadline: float) -> Mapping[str, float]:
        """The judge's scores; where it gives none, a notice says so and the run goes on."""
        try:
            prompt, read = judge.compose(self, judge.target)
            request = self._generate("judge", prompt, deadline)
            with trio.CancelScope(deadline=deadline):
                response = await judge.target.ref.ask(request)
                return read(response.content)
            raise self._too_late(judge.target)
        except UltraError as error:
            self.notices.append(f"the judge {judge.target.name!r} gave no scores: {error}")
            return {}

    # --- a stage that asks one after the other -------------------------------------------------------

    async def _ask_in_turn(self, stage: StagePlan, deadline: float) -> None:
        candidates = self.responses[stage.reads] if stage.reads is not None else None
        targets = [
            target
            for target in self.plan.targets
            if target.name not in self._unusable and (candidates is None or target.name in candidates)
        ]
        self._emit(StageStarted, stage=stage.name, models=tuple(target.name for target in targets))
        answer: ModelResponse | None = None
        failed: dict[str, str] = {}
        for number, target in enumerate(targets):
            # Half of what is left, while there is somebody else to ask: a model that hangs must not
            # take the time of those who would answer.
            now = trio.current_time()
            until = deadline if target is targets[-1] else now + (deadline - now) / 2
            try:
                with trio.CancelScope(deadline=until):
                    answer = await target.ref.ask(self._request(stage, target, until))
                if answer is None:
                    raise self._too_late(target)
            except StageFailed:
                raise
            except UltraError as error:
                failed[target.name] = self._failed(stage, target, error)
                continue
            answer = self._answered(stage, target, answer)
            self._source = "fallback" if number else "primary"
            break
        self.responses[stage.name] = {answer.model_name: answer} if answer is not None else {}
        if stage.final:
            self._synthesis = answer or self._best_candidate(stage)
        elif answer is None:
            self._check_quorum(stage, failed)
        self._emit(
            StageCompleted,
            stage=stage.name,
            answered=tuple(self.responses[stage.name]),
            failed=tuple(failed),
        )

    def _best_candidate(self, stage: StagePlan) -> ModelResponse:
        self._source = "best_candidate"
        self.notices.append("no model could write the synthesis; the best candidate stands in its place")
        candidates = self.responses[stage.reads or self.plan.stages[0].name].values()
        return max(candidates, key=lambda response: response.quality or 0.0)

    # --- one request and its end ---------------------------------------------------------------------

    def _request(self, stage: StagePlan, target: Target, deadline: float) -> Generate:
        prompt = stage.compose(self, target)
        sink = self.plan.sink
        on_chunk = None
        if sink is not None:

            def on_chunk(text: str, restart: bool) -> None:  # noqa: FBT001 - a callback
                sink.emit(Chunk, stage=stage.name, model_name=target.name, text=text, restart=restart)

        self._emit(ModelStarted, stage=stage.name, model_name=target.name)
        if prompt.cuts:
            parts = ", ".join(f"{part} by about {tokens} tokens" for part, tokens in prompt.cuts.items())
            self.notices.append(
                f"cut to fit the context window of {target.name!r} in {stage.name!r}: {parts}"
            )
            self._emit(PromptFitted, stage=stage.name, model_name=target.name, cut=dict(prompt.cuts))
        return self._generate(stage.name, prompt, deadline, on_chunk)

    def _generate(
        self, stage: str, prompt: ComposedPrompt, deadline: float, on_chunk: OnChunk | None = None
    ) -> Generate:
        return Generate(
            prompt=prompt.user,
            stage=stage,
            system=prompt.system,
            options=self.plan.options,
            use_cache=self.plan.use_cache,
            deadline=deadline,
            on_chunk=on_chunk,
        )

    def _answered(self, stage: StagePlan, target: Target, response: ModelResponse) -> ModelResponse:
        self._emit(ModelResponded, stage=stage.name, model_name=target.name, response=response)
        return response

    def _failed(self, stage: StagePlan, target: Target, error: Exception) -> str:
        cause = error.__cause__ if isinstance(error, AllAttemptsFailed) else error
        kind = cause.kind if isinstance(cause, ModelError) else None
        if kind in {"auth", "quota"} or isinstance(error, ActorDown):
            self._unusable.add(target.name)  # asking it again in this run cannot help
        failure = ModelFailure(
            model_name=target.name,
            stage=stage.name,
            message=str(error),
            error=type(cause).__name__,
            kind=kind,
            attempts=error.attempts if isinstance(error, AllAttemptsFailed) else 0,
            response_time=trio.current_time() - self._started,
        )
        self.failures.append(failure)
        self._emit(ModelFailed, stage=stage.name, model_name=target.name, failure=failure)
        return failure.message

    def _too_late(self, target: Target) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"Model {target.name!r} did not answer in time; the run has {self.plan.timeout:g} s in all"
        )

    def _emit(self, event: type[Event], **fields: object) -> None:
        if self.plan.sink is not None:
            self.plan.sink.emit(event, **fields)
