"""What is said about models: completions, responses, failures, metrics, results.

All are msgspec Structs, so they encode to JSON with `msgspec.json.encode` and decode back.
Times are seconds, counts of text are tokens unless a name says bytes, money is in US dollars.

Those that hold nothing but text, numbers and each other cannot be part of a cycle: the garbage collector
need not look at them (``gc=False``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from msgspec import Struct, field

from ultra._support.mapping import Record
from ultra.errors import ErrorKind

__all__ = [
    "Completion",
    "FinishReason",
    "ModelFailure",
    "ModelMetrics",
    "ModelResponse",
    "OrchestrationResult",
    "Status",
    "Step",
    "SynthesisSource",
    "Usage",
]

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal"]
"""Why a model stopped writing."""

Status = Literal["success", "degraded"]
"""Whether a run did all that was asked of it."""

SynthesisSource = Literal["primary", "fallback", "best_candidate", "selected"]
"""Where the final answer comes from.

primary: the model of highest weight that answered wrote it. fallback: another one did, after that failed.
best_candidate: nobody could write it, and the best candidate stands in its place. selected: the strategy
chose one of the answers, word for word.
"""


class Usage(Record, Struct, frozen=True, kw_only=True, gc=False):
    """Tokens of one call, as the provider counted them.

    `input` is every prompt token, cached ones included; `cached` is the part read from the provider's
    prompt cache. `output` is every generated token, reasoning included; `reasoning` is that part.
    None: not reported. `estimated`: Ultra estimated the numbers because the client reported none.
    """

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    reasoning: int | None = None
    estimated: bool = False

    @property
    def total(self) -> int:
        """All tokens of the call; what was not reported counts nothing."""
        return (self.input or 0) + (self.output or 0)


class Completion(Record, Struct, frozen=True, kw_only=True, gc=False):
    """What one call to a model gave back. `content` is the text of the answer and nothing else.

    `reasoning` is what the model wrote while it thought, `refusal` what it wrote instead of an answer;
    neither is part of `content`. `model` is the name that the provider answered under.
    """

    content: str
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    request_id: str | None = None
    model: str | None = None
    reasoning: str | None = None
    refusal: str | None = None

    def __str__(self) -> str:
        return self.content


class ModelResponse(Record, Struct, frozen=True, kw_only=True, gc=False):
    """One model's answer in one stage. Prints as its text.

    `model_name` is the name the model was registered under; `sample` tells apart several answers of it to
    one request, from 0. `response_time` and
    `time_to_first_token` are seconds from the moment the actor took the request up, retries
    included; None where nothing was measured. `attempts` is 0 for an answer from the cache.
    `quality` lies in 0..1, higher is better; None where nothing scored it.
    """

    model_name: str
    stage: str
    content: str
    sample: int = 0
    usage: Usage = Usage()
    response_time: float = 0.0
    time_to_first_token: float | None = None
    attempts: int = 1
    cached: bool = False
    quality: float | None = None
    finish_reason: FinishReason | None = None
    request_id: str | None = None
    cost: float | None = None
    timestamp: datetime = field(default_factory=partial(datetime.now, UTC))

    def __str__(self) -> str:
        return self.content


class ModelFailure(Record, Struct, frozen=True, kw_only=True, gc=False):
    """One model's failure in one stage: what a run reports for a model that gave no answer.

    `message` is the whole error as text; `kind` is None for errors that did not come from a provider.
    """

    model_name: str
    stage: str
    message: str
    error: str
    sample: int = 0
    kind: ErrorKind | None = None
    attempts: int = 0
    response_time: float = 0.0

    def __str__(self) -> str:
        return self.message


class ModelMetrics(Record, Struct, kw_only=True):
    """A snapshot of one model's counters since it was registered.

    `requests` = `successes` + `failures` + `cancelled`; answers from the cache are successes.
    `attempts` counts calls to the client; `retries` is those after the first of a request. Averages and
    percentiles are over the newest 256 values. `response_times` [s], `times_to_first_token` [s] and
    `quality_scores` (0..1) are, in the result of a run, those of this run alone, in the order of its
    steps; from `MultiLLMOrchestrator.get_metrics`, the newest 256 values, oldest first.
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
    cost: float = 0.0


class Step(Record, Struct, frozen=True, kw_only=True):
    """One step of a run: what the models answered to one question, or to several of one kind.

    `name` is the stage's, such as ``"initial"``; `round` tells apart several steps of one name, from 0.
    `responses` stand by weight, highest first, then by sample.
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


class OrchestrationResult(Record, Struct, kw_only=True):
    """All that one run produced. Prints as a short summary.

    Reads as a mapping, too: ``result["status"]`` is ``result.status``. `steps` has everything that was
    answered. `initial_responses` and `meta_responses` are views of the steps of these names, which map
    model names (highest weight first) to `ModelResponse`; a step called ``custom`` reads as
    ``result["custom_responses"]``. `final_synthesis` is the answer; None only when none was asked for.
    `confidence` (0..1) is how sure the strategy is of it; None where it cannot tell. `notices` says in
    words what the run did that nobody asked for, such as cutting candidates to fit a context window.
    """

    run_id: str
    prompt: str
    strategy: str = "synthesize"
    initial_responses: dict[str, ModelResponse] = field(default_factory=dict)
    meta_responses: dict[str, ModelResponse] = field(default_factory=dict)
    final_synthesis: ModelResponse | None = None
    synthesis_source: SynthesisSource | None = None
    confidence: float | None = None
    status: Status = "success"
    steps: list[Step] = field(default_factory=list)
    failures: list[ModelFailure] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    metrics: dict[str, ModelMetrics] = field(default_factory=dict)
    response_time: float = 0.0
    cost: float | None = None

    def __post_init__(self) -> None:
        stages = self.stages
        self.initial_responses = self.initial_responses or stages.get("initial", {})
        self.meta_responses = self.meta_responses or stages.get("meta", {})

    @property
    def stages(self) -> dict[str, dict[str, ModelResponse]]:
        """The first answer of each model, by step and model; of several rounds, those of the last."""
        return {step.name: step.by_model for step in self.steps}

    def __str__(self) -> str:
        models = dict.fromkeys(r.model_name for step in self.steps for r in step.responses)
        parts = [
            f"{self.strategy}: {self.status}",
            f"{len(models)} models answered",
            f"{self.response_time:.1f} s",
        ]
        if self.cost is not None:
            parts.append(f"${self.cost:.4f}")
        if self.confidence is not None:
            parts.append(f"confidence {self.confidence:.2f}")
        lines = [", ".join(parts), *(str(failure) for failure in self.failures), *self.notices]
        return "\n".join([*lines, "", str(self.final_synthesis)] if self.final_synthesis else lines)

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
