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
    "SynthesisSource",
    "Usage",
]

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal"]
"""Why a model stopped writing."""

Status = Literal["success", "degraded"]
"""Whether a run did all that was asked of it."""

SynthesisSource = Literal["primary", "fallback", "best_candidate"]
"""Who wrote the synthesis: the model of highest weight that answered, another one after it failed,
or nobody, and the best candidate stands in its place."""


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

    `model_name` is the name the model was registered under. `response_time` and
    `time_to_first_token` are seconds from the moment the actor took the request up, retries
    included; None where nothing was measured. `attempts` is 0 for an answer from the cache.
    `quality` lies in 0..1, higher is better; None where nothing scored it.
    """

    model_name: str
    stage: str
    content: str
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
    kind: ErrorKind | None = None
    attempts: int = 0
    response_time: float = 0.0

    def __str__(self) -> str:
        return self.message


class ModelMetrics(Record, Struct, kw_only=True):
    """A snapshot of one model's counters since it was registered.

    `requests` = `successes` + `failures` + `cancelled`; answers from the cache are successes.
    `attempts` counts calls to the client; `retries` is those after the first of a request. The lists
    are windows of the most recent values [s, or 0..1], oldest first, and their length is bounded.
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


class OrchestrationResult(Record, Struct, kw_only=True):
    """All that one run produced.

    Reads as a mapping with the guide's names: ``result["initial_responses"]`` and
    ``result["meta_responses"]`` map model names (highest weight first) to `ModelResponse`; a stage
    called ``custom`` reads as ``result["custom_responses"]``. `final_synthesis` is None only when no
    synthesis was asked for. `notices` says in words what the run did that nobody asked for, such as
    cutting candidates to fit a context window.
    """

    run_id: str
    prompt: str
    stages: dict[str, dict[str, ModelResponse]] = field(default_factory=dict)
    final_synthesis: ModelResponse | None = None
    synthesis_source: SynthesisSource | None = None
    status: Status = "success"
    failures: list[ModelFailure] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    metrics: dict[str, ModelMetrics] = field(default_factory=dict)
    response_time: float = 0.0
    cost: float | None = None

    @property
    def initial_responses(self) -> dict[str, ModelResponse]:
        """The answers to the question itself, by model name, highest weight first."""
        return self.stages.get("initial", {})

    @property
    def meta_responses(self) -> dict[str, ModelResponse]:
        """The analyses of the initial answers, by model name, highest weight first."""
        return self.stages.get("meta", {})

    def keys(self) -> tuple[str, ...]:
        """The guide's names first, then one ``<stage>_responses`` a custom stage, then the rest."""
        stages = dict.fromkeys(["initial", "meta", *self.stages])
        stages.pop("synthesis", None)
        return (
            *(f"{stage}_responses" for stage in stages),
            "final_synthesis",
            *(name for name in self.__struct_fields__ if name not in {"stages", "final_synthesis"}),
        )

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 - each key has its own type
        stage = key.removesuffix("_responses")
        if stage != key and key in self.keys():
            return self.stages.get(stage, {})
        return super().__getitem__(key)
