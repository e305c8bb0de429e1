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
    run_id: str
    seq: int
    time: float


class StageStarted(_Event, frozen=True, tag="stage_started"):
    """A stage begins; `models` are those that it may ask, highest weight first.

    `asks`: ``"all"`` of them at once, or one after the other until the ``"first"`` has answered.
    """

    stage: str
    models: tuple[str, ...]
    asks: Literal["all", "first"]


class ModelStarted(_Event, frozen=True, tag="model_started"):
    """A model has been asked."""

    stage: str
    model_name: str


class Chunk(_Event, frozen=True, tag="chunk"):
    """The next piece of a model's text; with `restart`, its text begins anew with this piece."""

    stage: str
    model_name: str
    text: str
    restart: bool = False


class ModelRetrying(_Event, frozen=True, tag="model_retrying"):
    """An attempt of a model has failed; the next one is made in `wait` seconds, or when its turn comes.

    `attempt` is the number of the one that failed, from 1; `kind` and `message` tell why. What it
    streamed counts for nothing: text of the next attempt begins anew.
    """

    stage: str
    model_name: str
    attempt: int
    wait: float
    kind: ErrorKind
    message: str


class ModelResponded(_Event, frozen=True, tag="model_response"):
    """A model has answered, in full."""

    stage: str
    model_name: str
    response: ModelResponse


class ModelFailed(_Event, frozen=True, tag="model_failed"):
    """A model has failed this stage for good; what it streamed counts for nothing."""

    stage: str
    model_name: str
    failure: ModelFailure


class PromptFitted(_Event, frozen=True, tag="prompt_fitted"):
    """Texts were cut to fit the context window of `model_name`: about how many tokens from whom."""

    stage: str
    model_name: str
    cut: dict[str, int]


class StageCompleted(_Event, frozen=True, tag="stage_completed"):
    """A stage is over. `quality` scores (0..1) the models that something scored."""

    stage: str
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
