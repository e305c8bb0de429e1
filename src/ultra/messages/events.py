"""The events of a run, each a tagged Struct.

Encode one with `msgspec.json.encode(event)`, decode it with `msgspec.json.decode(data, type=Event)`. `seq`
counts the events of one run from 0 without gaps; `time` is seconds since the run began. The last event is a
`RunCompleted` or a `RunFailed`, exactly one.

If the coordinator crashes, its supervisor restarts it, and the run starts again: then the events of its
stages come again, and texts that come again start with a chunk whose `restart` is true; so does reasoning.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct, field

from ultra.errors import ErrorKind
from ultra.messages.chat import ChatMessage, ReasoningPart, ToolCall
from ultra.messages.results import ModelFailure, ModelResponse, OrchestrationResult, Usage

__all__ = [
    "CallKey",
    "Chunk",
    "Event",
    "ModelFailed",
    "ModelResponded",
    "ModelRetrying",
    "ModelStarted",
    "PromptFitted",
    "ReasoningChunk",
    "RunCompleted",
    "RunFailed",
    "StageCompleted",
    "StageStarted",
    "ToolEnded",
    "ToolStarted",
    "ToolsCalled",
    "call_of",
]


class _Event(Struct, frozen=True, kw_only=True):
    """What all events have; filled in when the event is read."""

    run_id: str = ""
    seq: int = 0
    time: float = 0.0


class _StepEvent(_Event, frozen=True, kw_only=True):
    """An event of one step: `stage` is its name, `round` (from 0) its number among steps of that name."""

    stage: str
    round: int = 0


class _ModelEvent(_StepEvent, frozen=True, kw_only=True):
    """An event of one request: `sample` (from 0) is its number among equal requests to that model."""

    model_name: str
    sample: int = 0


class StageStarted(_StepEvent, frozen=True, tag="stage_started"):
    """A step begins; `models` are those that it may ask, highest weight first.

    `asks`: ``"all"`` of them at once, or one after the other until the ``"first"`` has answered.
    """

    models: tuple[str, ...]
    asks: Literal["all", "first"]


class ModelStarted(_ModelEvent, frozen=True, tag="model_started"):
    """A model has been asked."""


class Chunk(_ModelEvent, frozen=True, tag="chunk"):
    """The next piece of a model's text; with `restart`, the text before it is void."""

    text: str
    restart: bool = False


class ReasoningChunk(_ModelEvent, frozen=True, tag="reasoning"):
    """The next piece of what a model thinks; with `restart`, the reasoning before it is void.

    It is no part of the answer. `part` has the words, and, where a block of reasoning ends, what its provider
    wants back with it: a signature, or the encrypted form. With `restart` it may be empty.
    """

    part: ReasoningPart
    restart: bool = False

    @property
    def text(self) -> str:
        """The words."""
        return self.part.text


class ModelRetrying(_ModelEvent, frozen=True, tag="model_retrying"):
    """An attempt has failed, and the next one is made in `wait` seconds, or later if limits delay it.

    `attempt` is the number of the failed one, from 1; `kind` and `message` say why it failed. Its text
    and its reasoning are void. `usage` and `cost` (dollars) are those of all attempts so far, as far as they
    were counted.
    """

    attempt: int
    wait: float
    kind: ErrorKind
    message: str
    usage: Usage | None = None
    cost: float | None = None


class ModelResponded(_ModelEvent, frozen=True, tag="model_response"):
    """A model has answered; the response has the whole text."""

    response: ModelResponse


class ModelFailed(_ModelEvent, frozen=True, tag="model_failed"):
    """A model has failed in this step, after all attempts; its text is void."""

    failure: ModelFailure


class ToolsCalled(_ModelEvent, frozen=True, tag="tools_called"):
    """The run calls tools: `calls` are those of its result, as the policy of the run has chosen them."""

    calls: tuple[ToolCall, ...]


class ToolStarted(_StepEvent, frozen=True, tag="tool_started"):
    """`MultiLLMOrchestrator.run_tools` calls a function. `round` counts the turns from 0."""

    call: ToolCall


class ToolEnded(_StepEvent, frozen=True, tag="tool_ended"):
    """A function has given a result, or failed. `message` is what the model gets; `seconds`: how long."""

    call: ToolCall
    message: ChatMessage
    seconds: float = 0.0


class PromptFitted(_ModelEvent, frozen=True, tag="prompt_fitted"):
    """Something went so that the context window of this model holds the rest.

    `cut` is about how many tokens went, by the writer of a text; ``question`` and ``history`` are those of
    the caller's conversation. Of the history, the `left_out` oldest messages went.
    """

    cut: dict[str, int]
    left_out: int = 0


class StageCompleted(_StepEvent, frozen=True, tag="stage_completed"):
    """A step is over. `quality` has the scores (0..1) of its answers, by model, where there are any."""

    answered: tuple[str, ...]
    failed: tuple[str, ...]
    quality: dict[str, float] = field(default_factory=dict)


class RunCompleted(_Event, frozen=True, tag="run_completed"):
    """The run has ended with its result. The last event."""

    result: OrchestrationResult


class RunFailed(_Event, frozen=True, tag="run_failed"):
    """The run has failed: `error` is the class of the exception, `message` its text. The last event."""

    error: str
    message: str


Event: TypeAlias = (
    StageStarted
    | ModelStarted
    | Chunk
    | ReasoningChunk
    | ModelRetrying
    | ModelResponded
    | ModelFailed
    | PromptFitted
    | ToolsCalled
    | ToolStarted
    | ToolEnded
    | StageCompleted
    | RunCompleted
    | RunFailed
)
"""Any event of a run."""

CallKey: TypeAlias = tuple[str, int, str, int]
"""Stage, round, model and sample: what tells one call of a run from the others."""


def call_of(
    event: ModelStarted | Chunk | ReasoningChunk | ModelRetrying | ModelResponded | ModelFailed,
) -> CallKey:
    """Return which call of the run an event is about."""
    return event.stage, event.round, event.model_name, event.sample
