"""One run: what its strategy asks goes to the model actors; what comes back is kept, told and counted."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

import trio

from ultra.actors.coordinator.accounts import Accounts, cut_answers, unfinished
from ultra.actors.coordinator.assessment import Assessment
from ultra.actors.coordinator.fitted_requests import FittedRequests
from ultra.actors.coordinator.gathering import Gathering, numbers_of
from ultra.actors.coordinator.output_check import OutputCheck
from ultra.actors.coordinator.reading import Reader
from ultra.actors.coordinator.request_writing import RequestWriter
from ultra.actors.coordinator.steps import Call, OpenStep, StepBlock, Steps
from ultra.actors.coordinator.tool_turn import ToolTurn, readable, without_tools
from ultra.actors.model.messages import Generate, LocalRequest, seconds_until
from ultra.actors.model.spending import NOTHING_SPENT
from ultra.bridge.caller import call_in_context
from ultra.bridge.interruption import is_interruption
from ultra.errors import (
    ActorDown,
    AskTimeout,
    DeadlineExceeded,
    ModelError,
    ModelUnregistered,
    QuorumNotReached,
    StrategyFailed,
    UltraError,
    UsageError,
)
from ultra.messages.events import (
    ModelFailed,
    ModelResponded,
    ModelStarted,
    StageStarted,
)
from ultra.messages.results import (
    ModelResponse,
    OrchestrationResult,
)
from ultra.messages.schema import InvalidOutputError
from ultra.strategies.base import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ultra.actors.coordinator.messages import Execute, LocalRun, Target
    from ultra.actors.model.spending import Spent
    from ultra.messages.events import Event
    from ultra.messages.options import RunOptions
    from ultra.messages.request import ModelRequest
    from ultra.prompts.composing import Task
    from ultra.scoring.agreement import Agreed
    from ultra.strategies.base import Candidates, Model, Write

__all__ = ["Run"]

P = ParamSpec("P")
T = TypeVar("T")

_STAND_INS = {"fallback", "best_candidate"}


class Run:
    """The `RunContext` of one run; `execute` lets its strategy run and makes the result."""

    def __init__(self, message: Execute, local: LocalRun) -> None:
        self.request = without_tools(message.request)
        self.options: RunOptions = message.options
        self.models = tuple(target.described() for target in local.targets)
        self.judge = None if local.judge is None else local.judge.described()
        self._steps = Steps(local.sink.emit)
        self.steps = self._steps.done
        self.accounts = Accounts(self._steps, local.targets)
        self.failures = self.accounts.failures
        self.notices: list[str] = []
        self._message = message
        self._local = local
        self._targets = {target.name: target for target in local.targets}
        self._weights = {model.name: model.weight for model in self.models}
        self._rank = {model.name: number for number, model in enumerate(self.models)}
        self._reader = Reader(local.fencing, self.request)
        self._slots = local.slots()
        self.reminders = local.reminders
        self._asked = 0
        self.seconds = local.deadline - local.started  # in all
        self._errors: list[Exception] = []  # of the failures, in their order
        self._degraded = False
        self.unusable: dict[str, None] = {}
        self.fitted = FittedRequests(self.request, self.steps, self.notices, local.sink.emit)
        self._assessment = Assessment(message, local, self._reader, self._weights)
        if local.spending is not None:
            local.spending.read = self.accounts.spent
        self._tools = ToolTurn(message.request, self.request, self.options, self.models)
        self._writer = RequestWriter(
            self.request,
            self.options,
            self._weights,
            reader=self._reader,
            fitted=self.fitted,
            tools=self._tools,
            steps=self._steps,
        )

    async def execute(self) -> OrchestrationResult:
        """Carry out the run.

        Raises:
            QuorumNotReached: too few models answered a step that the run cannot do without.
            StageFailed: the user's own code for a stage raised.
            StrategyFailed: the strategy raised something else.
        """
        try:
            name = self._message.strategy.name
            try:
                answer: object = await self._tools.ahead(self) or await self._local.strategy.run(self)
                if not isinstance(answer, Answer):
                    raise TypeError(f"it gave {answer!r}; it must give an ultra.strategies.Answer")  # noqa: TRY301
            except UltraError:
                raise
            except BaseException as error:
                if is_interruption(error):
                    raise
                raise StrategyFailed(name, error) from error
            self._steps.tell_end()
            answer = self._tools.settled(self, answer)
            given = answer.response
            if given is not None and not given.is_whole:
                self.degrade(unfinished(given))
            output = self._output_of(name, given)
            confidence, basis = await self._assessment.confidence(answer, self.steps)
            degraded = self._degraded or bool(self.failures) or answer.source in _STAND_INS
            return OrchestrationResult(
                run_id=self._message.run_id,
                prompt=self._message.request.prompt,
                strategy=name,
                final_synthesis=answer.response,
                synthesis_source=answer.source,
                plain_output=output,
                agreement=answer.agreement or {},
                ranking=answer.ranking or {},
                tool_calls=self._tools.calls,
                confidence=confidence,
                confidence_basis=basis,
                quality_basis=self._assessment.quality_basis,
                status="degraded" if degraded else "success",
                steps=self.steps,
                failures=self.failures,
                notices=self.notices,
                metrics=self.accounts.metrics(),
                response_time=trio.current_time() - self._local.started,
                cost=self.accounts.spent()[1],
                other_cost=self.accounts.other_cost,
            )
        finally:
            self._errors.clear()  # their tracebacks refer to this
            self._writer.forget()

    def _output_of(self, strategy: str, answer: ModelResponse | None) -> object:
        """Return the output of the run's answer, as plain JSON; None if none is wanted, or there is none.

        Raises `StrategyFailed` where a strategy of the caller's own made an answer that has none.
        """
        output = self._local.output
        if output is None or answer is None or answer.tool_calls:
            return None
        try:
            return output.read(answer.content).value
        except InvalidOutputError as error:
            raise StrategyFailed(strategy, error) from error

    # --- steps -----------------------------------------------------------------------------------------

    def step(self, name: str, round: int = 0) -> StepBlock:  # noqa: A002 - the event's word
        """Open a step; see `RunContext.step`."""
        return StepBlock(self, self._steps, name, round)

    def _begin(
        self, step: OpenStep, models: Sequence[Model] | None, asks: Literal["all", "first"]
    ) -> list[Model]:
        """Return those of `models` that it is of use to ask, and tell of the step if it starts now."""
        unknown = [model.name for model in models or () if model.name not in self._targets]
        if unknown:
            choices = ", ".join(self._targets)
            raise UsageError(f"model {unknown[0]!r} is not one of those that this run may ask: {choices}")
        chosen = [m for m in (self.models if models is None else models) if m.name not in self.unusable]
        if not step.has_started:
            step.has_started = True
            names = tuple(model.name for model in chosen)
            self.emit(StageStarted(stage=step.name, round=step.round, models=names, asks=asks))
        return chosen

    # --- asking ----------------------------------------------------------------------------------------

    async def ask_all(
        self,
        write: Write,
        *,
        models: Sequence[Model] | None = None,
        samples: int | Mapping[str, Sequence[int]] | None = None,
        until: Callable[[Sequence[ModelResponse]], bool] | None = None,
        within: float | None = None,
        required: bool = True,
    ) -> list[ModelResponse]:
        """Ask models side by side; see `RunContext.ask_all`."""
        step = self._steps.current()
        if step.left_out:
            return self._paid(step, write, models)
        asked = self._begin(step, models, "all")
        wanted = len(self.models if models is None else models)
        needed = min(self.options.needed(len(self.models)), wanted)
        deadline = self.deadline(within)
        with Gathering(self, step, write, needed, until, deadline) as gathering:
            for model in asked:
                for sample in numbers_of(samples, self.options.samples, model.name):
                    gathering.ask(model, sample)
            await gathering.gather()
        found = gathering.answers()
        cut = gathering.cut()
        if cut:
            used = not found and required and self.options.quorum == 1
            self.degrade(cut_answers(step.name, cut, used=used))
            if used:
                return cut
        if gathering.answered < needed and (required or self.options.quorum == "all"):
            raise self._quorum_missed(step, needed, gathering.answered)
        return found

    async def ask_first(
        self,
        write: Write,
        *,
        models: Sequence[Model] | None = None,
        within: float | None = None,
        required: bool = False,
    ) -> ModelResponse | None:
        """Ask one model after the other; see `RunContext.ask_first`."""
        step = self._steps.current()
        if step.left_out:
            return next(iter(self._paid(step, write, models)), None)
        asked = self._begin(step, models, "first")
        deadline = self.deadline(within)
        for number, model in enumerate(asked, start=1):
            # Half of what is left, while there is somebody else to ask: a model that hangs must not
            # take the time of those who would answer.
            now = trio.current_time()
            until = deadline if number == len(asked) else now + (deadline - now) / 2
            request = self.written(step, model, write, 0)
            if request is None:
                continue
            try:
                return await self._ask(step, model, write, request, until)
            except UltraError:
                continue
        if required:
            raise self._quorum_missed(step, 1, 0)
        return None

    async def ask(self, model: Model, request: ModelRequest, *, within: float | None = None) -> ModelResponse:
        """Ask one model; see `RunContext.ask`."""
        step = self._steps.current()
        if step.left_out:
            raise DeadlineExceeded(f"step {step.name!r} was left out, since the run has cost enough")
        self._begin(step, [model], "all")
        fitted = self.fitted.fitted(step, model, self._writer.own(model, request))
        return await self._ask(step, model, request, fitted, self.deadline(within))

    async def _ask(
        self, step: OpenStep, model: Model, write: Write, request: ModelRequest, deadline: float
    ) -> ModelResponse:
        """Ask a model, and once more with a shorter prompt where it refuses the first one for its length.

        Or where its answer does not satisfy the schema of the request.
        """
        if (kept := self.kept(step, model, request)) is not None:
            return kept
        check = self.check(request)
        while True:
            call = self.call(step, model, check, deadline)
            try:
                response = await call.target.ref.ask(call.message, seconds_until(deadline))
                answer = self.read(call, readable(call, response))
                if answer is not None:
                    return self.answered(step, answer)
            except UltraError as raised:
                error = call.too_late(self.seconds) if isinstance(raised, AskTimeout) else raised
                shorter = self.shortened(step, model, write, 0, error)
                if shorter is None:
                    raise self.failed(step, call, error)  # noqa: B904 - it is that error, or has it as its cause
                check.restart(shorter)
            finally:
                self.forget(call)

    def written(self, step: OpenStep, model: Model, write: Write, sample: int) -> ModelRequest | None:
        """Return what a model is asked; None where the prompt does not fit it, which then has failed."""
        try:
            return self._writer.written(step, model, write, sample)
        except ModelError as error:
            self._fail(step, self._targets[model.name], sample, error)
            return None

    def shortened(
        self, step: OpenStep, model: Model, write: Write, sample: int, error: Exception
    ) -> ModelRequest | None:
        """Return a shorter prompt for a model that refused one for its length; None: there is none."""
        return self._writer.shortened(step, model, write, sample, error)

    def check(self, request: ModelRequest) -> OutputCheck:
        """Return what reads the answers to one request of one model."""
        return OutputCheck(self._local.output, request)

    def call(self, step: OpenStep, model: Model, check: OutputCheck, deadline: float) -> Call:
        """Make one call ready, for what `check` wants to ask, and tell of it."""
        request = check.request
        target = self._targets[model.name]
        self._asked += 1
        message = Generate(
            id=f"{self._message.run_id}/{self._asked}",
            run_id=self._message.run_id,
            stage=step.name,
            request=request,
            use_cache=self.options.use_cache and check.use_cache,
            scope=self.options.scope,
            time_left=seconds_until(deadline),
        )
        call = Call(message, model, target, step=step, sink=self._local.sink, check=check)
        listener = call if self._local.sink.listens else None
        slot = self._slots(target.name, request)
        call.local = LocalRequest(listener, self._local.caller, deadline, slot)
        self._local.requests.add(call.message.id, call.local)
        if check.wrong is None:
            self.emit(
                ModelStarted(stage=step.name, round=step.round, model_name=model.name, sample=request.sample)
            )
        return call

    def _paid(self, step: OpenStep, write: Write, models: Sequence[Model] | None) -> list[ModelResponse]:
        """Return the answers that were given and paid before, for a step that is left out."""
        if not self._tools.has_answers:
            return []
        asked = [(model, self.written(step, model, write, 0)) for model in self._begin(step, models, "all")]
        kept = [self.kept(step, model, request) for model, request in asked if request is not None]
        return [response for response in kept if response is not None]

    def kept(self, step: OpenStep, model: Model, request: ModelRequest) -> ModelResponse | None:
        """Return the answer that a model has given to this already, if any; see `ToolTurn.kept`."""
        return self._tools.kept(self, step, model, request)

    def forget(self, call: Call) -> None:
        """Keep nothing beside the message any more."""
        self._local.requests.discard(call.message.id)
        call.local.listener = None  # it is the call, which refers to this

    def read(self, call: Call, response: ModelResponse) -> ModelResponse | None:
        """Return the answer as the caller wants it; None: it is wrong, and to be asked for once more.

        Raises `AllAttemptsFailed` where it was asked for once more already.
        """
        answer = call.check.read(response)
        if answer is None and call.check.wrong is not None:
            call.retrying(response.attempts, call.check.wrong, 0.0)
        elif answer is not None and call.message.request.output is not None:
            self._assessment.take_output(answer)
        return answer

    def answered(self, step: OpenStep, response: ModelResponse) -> ModelResponse:
        """Keep an answer and tell of it."""
        step.responses.append(response)
        self.emit(
            ModelResponded(
                stage=step.name,
                round=step.round,
                model_name=response.model_name,
                sample=response.sample,
                response=response,
            )
        )
        return response

    def failed(self, step: OpenStep, call: Call, error: Exception) -> Exception:
        """Take note of a call's failure; return the error in the asker's terms."""
        sample = call.message.request.sample
        error = call.check.with_earlier(error)
        return self._fail(step, call.target, sample, error, call.spent, attempts=call.local.attempts)

    def _fail(
        self,
        step: OpenStep,
        target: Target,
        sample: int,
        error: Exception,
        spent: Spent = NOTHING_SPENT,
        *,
        attempts: int = 0,
    ) -> Exception:
        """Take note of a model's failure; return the error in the asker's terms."""
        error = target.model.explain(error)
        after = trio.current_time() - self._local.started
        failure = step.failed(target.name, sample, error, spent, after, attempts=attempts)
        if failure.kind in {"auth", "quota"} or isinstance(error, (ActorDown, ModelUnregistered)):
            self.unusable[target.name] = None  # asking it again in this run cannot help
        self.failures.append(failure)
        self._errors.append(error)
        self.emit(
            ModelFailed(
                stage=step.name, round=step.round, model_name=target.name, sample=sample, failure=failure
            )
        )
        return error

    def _quorum_missed(self, step: OpenStep, needed: int, answered: int) -> QuorumNotReached:
        failures = {failure.model_name: failure.message for failure in self.failures}
        causes = self._errors[-len(failures) :] if failures else []
        return QuorumNotReached(step.name, needed, answered, failures.items(), causes)

    def by_weight(self, responses: Sequence[ModelResponse]) -> list[ModelResponse]:
        """Return the answers by the weight of their models, then by sample."""
        return sorted(responses, key=lambda response: (self._rank[response.model_name], response.sample))

    # --- reading and scoring ---------------------------------------------------------------------------

    def compose(
        self,
        task: Task | str,
        candidates: Candidates,
        *,
        analyses: Sequence[ModelResponse] = (),
        system: str | None = None,
        max_tokens: int | None = None,
    ) -> Callable[[Model], ModelRequest]:
        """Write prompts by which models read answers; see `RunContext.compose`."""
        return self._writer.compose(task, candidates, analyses=analyses, system=system, max_tokens=max_tokens)

    def labels(self, candidates: Sequence[ModelResponse]) -> dict[str, ModelResponse]:
        """Return the answer behind each label; see `RunContext.labels`."""
        return self._reader.answers_by_label(candidates, self._weights)

    async def score(
        self, responses: Sequence[ModelResponse], *, within: float | None = None
    ) -> list[ModelResponse]:
        """Score answers by the scorer, then by the judge; see `RunContext.score`."""
        return await self._assessment.score(self, self._steps.current(), responses, self.deadline(within))

    async def agree(self, responses: Sequence[ModelResponse]) -> Agreed:
        """Count how answers agree; see `RunContext.agree`."""
        return await self._assessment.agree(responses)

    def best(self, responses: Sequence[ModelResponse]) -> ModelResponse:
        """Return the best of several answers; see `RunContext.best`."""
        return self._assessment.best(self.by_weight(responses))

    def accepts(self, value: object) -> bool:
        """Return whether plain JSON satisfies the output that the run wants; see `RunContext.accepts`."""
        try:
            if self._local.output is not None:
                self._local.output.plain(value)
        except InvalidOutputError:
            return False
        return True

    # --- the rest of a context --------------------------------------------------------------------------

    def call_user(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of the caller's own; see `RunContext.call_user`."""
        return call_in_context(self._local.caller, function, *args, **kwargs)

    def emit(self, event: Event) -> None:
        """Send an event to the readers of the run's stream."""
        self._local.sink.emit(event)

    def note(self, text: str) -> None:
        """Add a notice to the result."""
        self.notices.append(text)

    def degrade(self, text: str) -> None:
        """Add a notice, and let the result be degraded."""
        self._degraded = True
        self.note(text)

    def time_left(self, keep: float = 0.0) -> float | None:
        """Return the seconds that are left, less the share `keep` of the run's time; None: no deadline."""
        local = self._local
        if local.deadline == inf:
            return None
        end = local.deadline - keep * (local.deadline - local.started)
        return max(0.0, end - trio.current_time())

    @property
    def spend_left(self) -> float | None:
        """The dollars that are left of `max_cost`; None: no limit."""
        return None if self.options.max_cost is None else self.options.max_cost - self.accounts.cost()

    def deadline(self, within: float | None) -> float:
        """Return when so many seconds are over, but at the latest the run's deadline (`current_time`)."""
        return (
            self._local.deadline
            if within is None
            else min(self._local.deadline, trio.current_time() + within)
        )
