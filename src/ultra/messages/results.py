"""Completions, responses, failures, metrics, and the results of runs.

All are msgspec Structs, so `msgspec.json.encode` makes JSON of them, and decoding gives them back. Times are
seconds, amounts of text are tokens, costs are US dollars.

Structs that hold only text, numbers and each other cannot be part of a reference cycle, so the garbage
collector does not track them (``gc=False``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from msgspec import Struct, field

from ultra._support.mapping import Record
from ultra.errors import ErrorKind
from ultra.messages.chat import ChatMessage, Part, ReasoningPart, TextPart, ToolCall

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Completion",
    "ConfidenceBasis",
    "FinishReason",
    "ModelFailure",
    "ModelMetrics",
    "ModelResponse",
    "OrchestrationResult",
    "QualityBasis",
    "Refusal",
    "Status",
    "Step",
    "SynthesisSource",
    "Usage",
    "first_answers",
    "sample_name",
]

_ASKING: Final = frozenset({"initial", "escalation"})
"""The steps in which models answer the question itself."""

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "other"]
"""Why a model stopped writing; other: for a reason that Ultra does not know, so not because it was done."""

Status = Literal["success", "degraded"]
"""Whether a run went as it should: degraded, if a model failed or a fallback was needed."""

SynthesisSource = Literal[
    "primary", "fallback", "best_candidate", "selected", "unanimous", "merged", "tool_calls"
]
"""Where the final answer comes from.

primary: the model of highest weight that answered wrote it. fallback: another model wrote it, after that
one failed. best_candidate: no model could write it, and the best candidate stands in its place. selected:
the strategy chose one of the answers, word for word. unanimous: all models gave it. merged: it was put
together field by field from the structured answers of the models. tool_calls: it is no answer yet: it calls
tools, and the caller has to give their results.
"""


ConfidenceBasis = Literal["votes", "similarity", "verifier", "quality", "ranks"]
"""What a confidence is.

votes: the share of the models' weight whose final answer is that of the result. similarity: how much the
result has in common with the texts of the models, where they have no final answers. verifier: what the
caller's function said of it. quality: its grade by the judge or a scorer of the caller. ranks: its mean
score, 1 for the first and 0 for the last place, in the rankings of the models.
"""

QualityBasis = Literal["votes", "similarity", "grade"]
"""What the quality of answers is.

votes: the share of the others, by weight, with the same final answer. similarity: how much the text has in
common with those of the others. grade: what the judge, or a scorer of the caller, said of it.
"""


def first_answers(steps: Sequence[Step]) -> list[ModelResponse]:
    """Return the answers to the question itself, that have read no others: those a vote is over.

    They are of the step ``initial`` and of those that escalate it; where there is none, of the first step
    that has any.
    """
    asked = [response for step in steps if step.name in _ASKING for response in step.responses]
    return asked or next((list(step.responses) for step in steps if step.responses), [])


def sample_name(model_name: str, sample: int) -> str:
    """Return the name of an answer among others: that of its model, with ``#1`` for its second sample."""
    return f"{model_name}#{sample}" if sample else model_name


class _Counts(Struct, frozen=True, gc=False):
    """What a `Usage` may be given without names."""

    input: int | None = None
    output: int | None = None


class Usage(Record, _Counts, frozen=True, kw_only=True, gc=False):
    """The tokens of one call, as the provider counted them; None: not reported.

    `input` are all tokens of the prompt; `cached` are those of them that came from the provider's prompt
    cache, and `written` those that were written into it. `output` are all generated tokens; `reasoning` are
    those of them that were reasoning. `estimated`: Ultra estimated some of the numbers, since the client
    reported none, or none that can be true.
    """

    cached: int | None = None
    written: int | None = None
    reasoning: int | None = None
    estimated: bool = False

    @property
    def total(self) -> int:
        """All tokens of the call; what was not reported counts as 0."""
        return (self.input or 0) + (self.output or 0)

    def plus(self, other: Usage | None) -> Usage:
        """Return the tokens of both calls together; None and what was not reported add nothing."""
        if other is None:
            return self
        return Usage(
            input=_sum(self.input, other.input),
            output=_sum(self.output, other.output),
            cached=_sum(self.cached, other.cached),
            written=_sum(self.written, other.written),
            reasoning=_sum(self.reasoning, other.reasoning),
            estimated=self.estimated or other.estimated,
        )


def _sum(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else one + other


class _Text(Struct, frozen=True, gc=False):
    """What a `Completion` may be given without a name."""

    content: str


class Completion(Record, _Text, frozen=True, kw_only=True, gc=False):
    """The answer of one call to a client, such as ``Completion("Paris.")``.

    `content` is the text of the answer and nothing else.

    `reasoning` is what the model wrote before its answer, `refusal` what it wrote instead of one; neither
    is in `content`. `tool_calls` are the calls that the model asks for. `reasoning_parts` are what its
    provider wants back in the next turn. `model` is the name of the model in the provider's reply.
    `stop_sequence` is the one of the request that ended the answer, where the provider tells it.
    """

    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    request_id: str | None = None
    model: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning_parts: tuple[ReasoningPart, ...] = ()
    stop_sequence: str | None = None

    def __str__(self) -> str:
        return self.content


class ModelResponse(Record, Struct, frozen=True, kw_only=True, gc=False):
    """The answer of one model in one step. Prints as its text.

    Attributes:
        model_name: the name under which the model was registered.
        stage: the name of the step.
        content: the text.
        sample: the number (from 0) among the answers of this model to one request.
        usage: the tokens of the call that gave the answer.
        lost_usage: the tokens of the calls that were made for it and gave none, such as failed attempts and
            hedges that lost, as far as the provider counted them; None: none were counted.
        response_time: seconds from the moment when the model actor took the request, retries included.
        time_to_first_token: seconds until the first text of a stream; None if the answer did not stream.
        attempts: how often the client was called; 0 for an answer from the cache.
        cached: whether the answer is from the cache.
        quality: the score, 0..1, higher is better; None if the answer has none.
        finish_reason: why the model stopped writing; None: not reported.
        stop_sequence: the one of the request that ended the answer; None: none did, or it is not told.
        request_id: the provider's name of the request, to ask its support with.
        cost: dollars of all calls that were made for it, of those in `lost_usage`, too; None if the model has
            no price, or the answer is from the cache.
        tool_calls: the calls of tools that the model asks for.
        reasoning_parts: what the model's provider wants back in the next turn; `message` has them.
        output: where an output was asked for, the value that the text has, as plain JSON; in the answer of
            `get_model_response`, as a value of the type that was given.
        timestamp: when the response was made.
    """

    model_name: str
    stage: str
    content: str
    sample: int = 0
    usage: Usage = Usage()
    lost_usage: Usage | None = None
    response_time: float = 0.0
    time_to_first_token: float | None = None
    attempts: int = 1
    cached: bool = False
    quality: float | None = None
    finish_reason: FinishReason | None = None
    request_id: str | None = None
    cost: float | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning_parts: tuple[ReasoningPart, ...] = ()
    output: Any = None
    timestamp: datetime = field(default_factory=partial(datetime.now, UTC))
    stop_sequence: str | None = None

    def __str__(self) -> str:
        return self.content

    @property
    def message(self) -> ChatMessage:
        """The answer as a message of a conversation that goes on."""
        content: str | tuple[Part, ...] = self.content
        if self.reasoning_parts:
            content = (*self.reasoning_parts, *((TextPart(self.content),) if self.content else ()))
        return ChatMessage("assistant", content, tool_calls=self.tool_calls)

    @property
    def is_whole(self) -> bool:
        """Whether the model wrote it to its end: neither cut at a limit, nor refused, nor filtered.

        One that stopped for a reason that Ultra does not know is none; a client may report no reason.
        """
        return self.finish_reason in {None, "stop", "tool_calls"}

    @property
    def not_whole_because(self) -> str:
        """What an answer that `is_whole` says is none lacks, in words; empty for a whole one."""
        if self.is_whole:
            return ""
        if self.finish_reason == "length":
            return "stopped at its limit of tokens"
        return f"ended for another reason than being done ({self.finish_reason})"


class Refusal(Struct, frozen=True, kw_only=True, gc=False):
    """A model refused to answer, or its provider stopped it. No other attempt could mend that.

    `reason`: ``refusal`` by the model, ``content_filter`` by its provider. `words`: what was said of it.
    `begun`: what had been written of an answer.
    """

    reason: Literal["refusal", "content_filter"]
    words: str | None = None
    begun: str = ""


class ModelFailure(Record, Struct, frozen=True, kw_only=True, gc=False):
    """The failure of one model in one step. Prints as its message.

    `error` is the class of the exception, `message` its whole text; `kind` is the kind of a `ModelError`, and
    None for other errors. `response_time`: seconds from the beginning of the run. `usage` are the tokens of
    its attempts as far as the provider counted them, and `cost` their dollars; None: not known. `refusal`:
    there was an answer, and it is a refusal.
    """

    model_name: str
    stage: str
    message: str
    error: str
    sample: int = 0
    kind: ErrorKind | None = None
    attempts: int = 0
    response_time: float = 0.0
    usage: Usage | None = None
    cost: float | None = None
    refusal: Refusal | None = None

    def __str__(self) -> str:
        return self.message


class ModelMetrics(Record, Struct, kw_only=True):
    """What one model did since it was registered, at one moment.

    `requests` = `successes` + `failures` + `cancelled`; answers from the cache are successes. `attempts`
    counts calls to the client, `retries` those of them that were not the first of their request. Averages
    and percentiles are over the newest 256 values. `response_times` [s], `times_to_first_token` [s] and
    `quality_scores` (0..1) are those of one run, in the order of its steps, in the result of that run; from
    `MultiLLMOrchestrator.get_metrics` they are the newest 256 values, oldest first. Tokens and `cost`
    (dollars; None: the model has no price) are those of all attempts, failed ones and lost hedges included,
    as far as they were counted.
    """

    requests: int = 0
    successes: int = 0
    failures: int = 0
    cancelled: int = 0
    attempts: int = 0
    retries: int = 0
    success_rate: float | None = None
    response_times: list[float] = field(default_factory=list)
    average_response_time: float | None = None
    response_time_p50: float | None = None
    response_time_p95: float | None = None
    times_to_first_token: list[float] = field(default_factory=list)
    quality_scores: list[float] = field(default_factory=list)
    average_quality: float | None = None
    cache_hits: int = 0
    cache_misses: int = 0
    joined: int = 0
    hedges: int = 0
    hedges_won: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    tokens_estimated: bool = False
    cost: float | None = None


class Step(Record, Struct, frozen=True, kw_only=True):
    """One step of a run, and what the models answered in it.

    `name` is, for a stage, the name of the stage, such as ``"initial"``. `round` (from 0) is the number
    among steps of the same name. `responses` are ordered by weight, highest first, then by sample.
    """

    name: str
    round: int = 0
    responses: tuple[ModelResponse, ...] = ()

    @property
    def by_model(self) -> dict[str, ModelResponse]:
        """The first answer of each model, by its name."""
        found: dict[str, ModelResponse] = {}
        for response in self.responses:
            found.setdefault(response.model_name, response)
        return found


class OrchestrationResult(Record, Struct, kw_only=True, dict=True):
    """The result of one run. Prints as a short summary, and reads as a mapping, too.

    ``result["status"]`` is ``result.status``, and ``result["custom_responses"]`` are the answers of the step
    ``custom``.

    Attributes:
        run_id: the name of the run, which events have, too.
        prompt: the question.
        strategy: the name of the strategy.
        initial_responses: the answers of the step ``initial``, by model name, highest weight first.
        meta_responses: the same of the step ``meta``.
        final_synthesis: the answer of the run; None if the stages have no synthesis.
        synthesis_source: where that answer comes from.
        tool_calls: the calls of tools that the run asks for; then `final_synthesis` is the model's message
            that has them, to be continued with their results.
        plain_output: where an output was asked for, the value of the answer as plain JSON; in the JSON of the
            result it is called ``output``. `output` has it as a value of the type that was given.
        agreement: by the strategy ``fields``, the share (0..1) of all weight that stands for the value of
            each field, by its JSON path, such as ``$.items[0].price``.
        ranking: where models ranked the answers, the mean score of each by its name, best first: 1, if it
            is the first one for all.
        confidence: how sure the run is of it, 0..1: by default the share of votes for it; None if there is
            no final answer.
        confidence_basis: what the confidence is.
        quality_basis: what the `quality` of its answers is; None if none has been scored.
        status: whether all went as it should.
        steps: all steps in their order, with all answers; the other views are made of them.
        failures: the models that failed, step by step.
        notices: what the caller should know of the run, such as that candidates were cut to fit a window.
        metrics: the metrics of each model that the run could ask.
        response_time: seconds of the whole run.
        cost: dollars of all calls: the sum of what the responses, the failures and `other_cost` say; None if
            no model has a price.
        other_cost: dollars of the judge's grades, and of calls that became needless before they had ended;
            None if there are none.
    """

    run_id: str
    prompt: str
    strategy: str = "synthesize"
    initial_responses: dict[str, ModelResponse] = field(default_factory=dict)
    meta_responses: dict[str, ModelResponse] = field(default_factory=dict)
    final_synthesis: ModelResponse | None = None
    synthesis_source: SynthesisSource | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    plain_output: Any = field(default=None, name="output")
    agreement: dict[str, float] = field(default_factory=dict)
    ranking: dict[str, float] = field(default_factory=dict)
    confidence: float | None = None
    confidence_basis: ConfidenceBasis | None = None
    quality_basis: QualityBasis | None = None
    status: Status = "success"
    steps: list[Step] = field(default_factory=list)
    failures: list[ModelFailure] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    metrics: dict[str, ModelMetrics] = field(default_factory=dict)
    response_time: float = 0.0
    cost: float | None = None
    other_cost: float | None = None

    def __post_init__(self) -> None:
        stages = self.stages
        self.initial_responses = self.initial_responses or stages.get("initial", {})
        self.meta_responses = self.meta_responses or stages.get("meta", {})

    @property
    def output(self) -> Any:  # noqa: ANN401 - of the type that the caller gave
        """The value of the answer, of the type that was given as ``output=``; None if none was.

        In a result that comes from another process, or from an event, it is plain JSON.
        """
        return vars(self).get("output", self.plain_output)

    def with_output(self, value: Any) -> Self:  # noqa: ANN401 - as above
        """Let `output` be this value, and return this result."""
        vars(self)["output"] = value
        return self

    @property
    def stages(self) -> dict[str, dict[str, ModelResponse]]:
        """The first answer of each model, by step and model; of several rounds, the last one."""
        return {step.name: step.by_model for step in self.steps}

    @property
    def has_one_answer(self) -> bool:
        """Whether a single answer came: a confidence says nothing then, since it is compared with none."""
        return sum(len(step.responses) for step in self.steps) == 1

    def __str__(self) -> str:
        models = dict.fromkeys(r.model_name for step in self.steps for r in step.responses)
        parts = [
            f"{self.strategy}: {self.status}",
            f"{len(models)} model{'' if len(models) == 1 else 's'} answered",
            f"{self.response_time:.1f} s",
        ]
        if self.cost is not None:
            parts.append(f"${self.cost:.4f}")
        if self.confidence is not None and not self.has_one_answer:
            parts.append(f"confidence {self.confidence:.2f}")
        lines = [", ".join(parts), *(str(failure) for failure in self.failures), *self.notices]
        said = [str(self.final_synthesis)] if self.final_synthesis and str(self.final_synthesis) else []
        said += [f"calls {call}" for call in self.tool_calls]
        return "\n".join([*lines, "", *said] if said else lines)

    def keys(self) -> tuple[str, ...]:
        """Return the names that can be read, as they stand in the JSON of the result."""
        return tuple("output" if name == "plain_output" else name for name in self.__struct_fields__)

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 - each key has its own type
        stage = key.removesuffix("_responses")
        if stage != key and key not in self.__struct_fields__ and stage in self.stages:
            return self.stages[stage]
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (
            isinstance(key, str)
            and key.endswith("_responses")
            and key.removesuffix("_responses") in self.stages
        )
