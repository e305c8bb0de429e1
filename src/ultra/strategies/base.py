"""What a strategy is, and what a run does for it.

A strategy is a page of plain code: it asks models, and says which answer stands. The run keeps the rest
for it: the deadline, the quorum, the grace for stragglers, the budget, events, and the degraded status::

    class Longest(Struct, frozen=True):
        async def run(self, context: RunContext) -> Answer:
            with context.step("initial"):
                responses = await context.ask_all(context.request)
            return Answer(max(responses, key=lambda response: len(response.content)), source="selected")
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeAlias, TypeVar, get_args, runtime_checkable

from msgspec import Struct

from ultra.clients.pricing import Price
from ultra.messages.request import ModelRequest
from ultra.messages.results import ConfidenceBasis, ModelFailure, ModelResponse, SynthesisSource
from ultra.messages.runs import StrategySpec

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ultra.messages.events import Event
    from ultra.messages.options import RunOptions
    from ultra.messages.results import Step
    from ultra.prompts.composing import Task
    from ultra.scoring.agreement import Agreed

__all__ = [
    "Answer",
    "Candidates",
    "ChecksModels",
    "Model",
    "OpenStep",
    "RunContext",
    "Strategy",
    "StrategySpec",
    "Write",
    "models_check",
]

P = ParamSpec("P")
T = TypeVar("T")


class Model(Struct, frozen=True):
    """A model that a run may ask.

    `context_window` is tokens, prompt and answer together, if it is known. `takes_conversations`: whether its
    client takes all messages of a request, and not the prompt alone. `images` and `files`: whether it reads
    images, and documents; None: that is not known. False: it is told of them in words.
    `takes_tools`: whether tools may be offered to it: not to one that is known to have no use for them.
    `price` is what it costs; None: that is not known.
    """

    name: str
    weight: float = 1.0
    context_window: int | None = None
    takes_conversations: bool = True
    images: bool | None = None
    files: bool | None = None
    takes_tools: bool = True
    price: Price | None = None


class Answer(Struct, frozen=True):
    """What a strategy came to; `response` is None where no answer was asked for.

    `confidence` (0..1) is how sure it is, and `basis` by what; None: the run takes the share of votes for the
    answer. `agreement` is the share of votes for each field of a structured answer, by its JSON path.
    `ranking` has the score (0..1) of each answer that was ranked, by its name (`sample_name`), best first.

    Raises:
        ValueError: a value is not allowed.
    """

    response: ModelResponse | None
    source: SynthesisSource | None = None
    confidence: float | None = None
    basis: ConfidenceBasis | None = None
    agreement: dict[str, float] | None = None
    ranking: dict[str, float] | None = None

    def __post_init__(self) -> None:
        response: object = self.response
        if not (response is None or isinstance(response, ModelResponse)):
            raise ValueError(
                f"the response of the answer is {response!r}; it must be a ModelResponse, or None"
            )
        if not (self.source is None or self.source in get_args(SynthesisSource)):
            choices = ", ".join(get_args(SynthesisSource))
            raise ValueError(
                f"the source of the answer is {self.source!r}; it must be None, or of: {choices}"
            )
        if not (self.confidence is None or 0 <= self.confidence <= 1):
            raise ValueError(
                f"the confidence is {self.confidence!r}; it must be a number from 0 to 1, or None"
            )


Write: TypeAlias = ModelRequest | Callable[[Model], ModelRequest]
"""What a step asks: the same of every model, or what this function writes for each.

The function raises `ModelError` where a model cannot be asked this; then that model has failed.
"""

Candidates: TypeAlias = Sequence[ModelResponse] | Callable[[Model], Sequence[ModelResponse]]
"""What a step reads: the same answers for every model, or what this function gives to each."""


class OpenStep(Protocol):
    """The step that is open: what became of it so far."""

    @property
    def failures(self) -> Sequence[ModelFailure]:
        """The models that failed in it."""
        ...

    @property
    def left_out(self) -> bool:
        """Whether the budget was used up before it, so that it asks nobody."""
        ...


@runtime_checkable
class Strategy(Protocol):
    """A way to ask models and to merge what they say.

    Its options are its own fields; several runs use one object at the same time, so it keeps nothing of
    a run.
    """

    async def run(self, context: RunContext) -> Answer:
        """Ask and decide. An exception that leaves this fails the run; let `trio.Cancelled` pass."""
        ...


class ChecksModels(Protocol):
    """A strategy whose options name models: it checks them before any model is called."""

    def check_models(self, asked: Sequence[str], registered: Collection[str]) -> None:
        """Raise `BadCall` if an option names a model that is not there.

        Args:
            asked: the models that the run may ask, highest weight first.
            registered: all models of the orchestrator.
        """
        ...


def models_check(strategy: object) -> Callable[[Sequence[str], Collection[str]], None] | None:
    """Return the `check_models` of a strategy that is a `ChecksModels`; None: it is none."""
    found: Callable[[Sequence[str], Collection[str]], None] | None = getattr(strategy, "check_models", None)
    return found


class RunContext(Protocol):
    """One run, as its strategy sees it. Times are seconds, costs are dollars."""

    @property
    def request(self) -> ModelRequest:
        """What the caller asks: the system prompt, the question, and how to write."""
        ...

    @property
    def models(self) -> Sequence[Model]:
        """The models that may be asked, highest weight first."""
        ...

    @property
    def options(self) -> RunOptions:
        """The settings of the run."""
        ...

    @property
    def steps(self) -> Sequence[Step]:
        """The steps that have ended."""
        ...

    @property
    def failures(self) -> Sequence[ModelFailure]:
        """The models that have failed so far, step by step."""
        ...

    @property
    def judge(self) -> Model | None:
        """The model that grades answers in `score`, if there is one."""
        ...

    def step(self, name: str, round: int = 0) -> AbstractContextManager[OpenStep]:  # noqa: A002 - the event's word
        """Open the step in which the asks of the block take place; its answers stand in the result.

        Steps follow one another. Raises `UsageError` inside another step.
        """
        ...

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
        """Ask models side by side and return their answers, by weight, then by sample.

        It waits for all of them; but `grace` seconds after the quorum stands, after `within` seconds, or
        as soon as the quorum stands and `until` (given the answers so far) is true, the others are
        cancelled. Those that `until` made needless have not failed. A model that fails is told in events
        and failures. With the budget used up, it asks nobody and returns nothing.

        Args:
            write: what is asked.
            models: whom to ask; None: all.
            samples: how often each is asked; a mapping: the numbers of the samples that each gives, by the
                name of the model; None: as the run's options say.
            until: when the answers are enough.
            within: seconds; None: all that are left.
            required: whether the quorum must be reached; without it, any number of answers will do,
                unless the run's quorum is ``"all"``.

        Raises:
            QuorumNotReached: too few models answered.
        """
        ...

    async def ask_first(
        self,
        write: Write,
        *,
        models: Sequence[Model] | None = None,
        within: float | None = None,
        required: bool = False,
    ) -> ModelResponse | None:
        """Ask one model after the other, by weight, and return the first answer; None where none gives one.

        While there is somebody else to ask, a model has half of the time that is left.

        Raises:
            QuorumNotReached: no model answered, and one is `required`.
        """
        ...

    async def ask(self, model: Model, request: ModelRequest, *, within: float | None = None) -> ModelResponse:
        """Ask one model.

        Raises:
            AllAttemptsFailed, ActorError, DeadlineExceeded, ModelUnregistered: it gave no answer.
        """
        ...

    async def score(
        self, responses: Sequence[ModelResponse], *, within: float | None = None
    ) -> list[ModelResponse]:
        """Return the answers with their `quality`, by the scorer of the orchestrator, then by its judge.

        Where neither can tell, `quality` stays None. What the judge does wrong is a notice.

        Raises:
            StageFailed: the user's scorer raised.
        """
        ...

    def compose(
        self,
        task: Task | str,
        candidates: Candidates,
        *,
        analyses: Sequence[ModelResponse] = (),
        system: str | None = None,
        max_tokens: int | None = None,
    ) -> Callable[[Model], ModelRequest]:
        """Write prompts by which models read what others wrote: fenced, with neutral labels, fitted.

        `candidates` may be a function that says for each model what it reads.
        `task` is one of `ultra.prompts.composing`, or the name of a built-in one; `system` goes ahead of
        it, by default that of the request. `max_tokens` limits what is written, in place of the option of
        the request.
        """
        ...

    def labels(self, candidates: Sequence[ModelResponse]) -> dict[str, ModelResponse]:
        """Return the answer behind each label in the prompts that `compose` writes of these candidates."""
        ...

    async def agree(self, responses: Sequence[ModelResponse]) -> Agreed:
        """Count how the final answers agree, by weight; names are those of `sample_name`."""
        ...

    def best(self, responses: Sequence[ModelResponse]) -> ModelResponse:
        """Return the best answer: a whole one, graded best by the judge or a scorer of the caller.

        Where neither has graded, and among equals, it is the one whose final answer has most votes; then
        the one of the model of highest weight.
        """
        ...

    def accepts(self, value: object) -> bool:
        """Return whether `value`, plain JSON, satisfies the output that the run wants, if it wants one."""
        ...

    def call_user(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of the caller's own, with the caller's context variables."""
        ...

    def emit(self, event: Event) -> None:
        """Send an event to the readers of the run's stream."""
        ...

    def note(self, text: str) -> None:
        """Add a notice to the result."""
        ...

    def degrade(self, text: str) -> None:
        """Add a notice, and let the status of the result be ``"degraded"``."""
        ...

    def time_left(self, keep: float = 0.0) -> float | None:
        """Return the seconds that are left when the share `keep` (0..1) of the run's time is kept for later.

        None: there is no deadline.
        """
        ...

    @property
    def spend_left(self) -> float | None:
        """The dollars that are left of `max_cost`; None: no limit."""
        ...
