"""What a run tells while it goes on: one tagged Struct for each thing that happens.

A run that a crash of Ultra's own makes begin anew tells its stages anew, too; texts that are told
again begin with a restart, and the last event comes once.

Encode with `msgspec.json.encode(event)`, decode with `msgspec.json.decode(data, type=Event)`. `seq`
counts the events of one run from 0 without gaps; `time` is seconds since the run began.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct, field

from ultra.errors import ErrorKind
from ultra.messages.results import ModelFailure, ModelResponse, OrchestrationResult

__all__ = [
    "Chunk",
    "Event",
    "ModelFailed",
    "ModelResponded",
    "ModelRetrying",
    "ModelStarted",
    "PromptFitted",
    "RunCompleted",
    "RunFailed",
    "StageCompleted",
    "StageStarted",
]


class _Event(Struct, frozen=True, kw_only=True):
    """What all events have; who numbers them fills it in."""

    run_id: str = ""
    seq: int = 0
    time: float = 0.0


class _StepEvent(_Event, frozen=True, kw_only=True):
    """An event of one step: `stage` is its name, `round` tells apart several steps of that name."""

    stage: str
    round: int = 0


class _ModelEvent(_StepEvent, frozen=True, kw_only=True):
    """An event of one request: `sample` tells apart several requests of the same words to one model."""

    model_name: str
    sample: int = 0


class StageStarted(_StepEvent, frozen=True, tag="stage_started"):
    """A stage begins; `models` are those that it may ask, highest weight first.

    `asks`: ``"all"`` of them at once, or one after the other until the ``"first"`` has answered.
    """

    models: tuple[str, ...]
    asks: Literal["all", "first"]


class ModelStarted(_ModelEvent, frozen=True, tag="model_started"):
    """A model has been asked."""


class Chunk(_ModelEvent, frozen=True, tag="chunk"):
    """The next piece of a model's text; with `restart`, its text begins anew with this piece."""

    text: str
    restart: bool = False


class ModelRetrying(_ModelEvent, frozen=True, tag="model_retrying"):
    """An attempt of a model has failed; the next one is made in `wait` seconds, or when its turn comes.

    `attempt` is the number of the one that failed, from 1; `kind` and `message` tell why. What it
    streamed counts for nothing: text of the next attempt begins anew.
    """

    attempt: int
    wait: float
    kind: ErrorKind
    message: str


class ModelResponded(_ModelEvent, frozen=True, tag="model_response"):
    """A model has answered, in full."""

    response: ModelResponse


class ModelFailed(_ModelEvent, frozen=True, tag="model_failed"):
    """A model has failed this stage for good; what it streamed counts for nothing."""

    failure: ModelFailure


class PromptFitted(_ModelEvent, frozen=True, tag="prompt_fitted"):
    """Texts were cut to fit the context window of `model_name`: about how many tokens from whom."""

    cut: dict[str, int]


class StageCompleted(_StepEvent, frozen=True, tag="stage_completed"):
    """A stage is over. `quality` scores (0..1) the models that something scored."""

    answered: tuple[str, ...]
    failed: tuple[str, ...]
    quality: dict[str, float] = field(default_factory=dict)


class RunCompleted(_Event, frozen=True, tag="run_completed"):
    """The run has its result. The last event."""

    result: OrchestrationResult


class RunFailed(_Event, frozen=True, tag="run_failed"):
    """The run has failed; `error` is the exception's class, `message` its text. The last event."""

    error: str
    message: str


Event: TypeAlias = (
    StageStarted
    | ModelStarted
    | Chunk
    | ModelRetrying
    | ModelResponded
    | ModelFailed
    | PromptFitted
    | StageCompleted
    | RunCompleted
    | RunFailed
)
"""Any event of a run."""
