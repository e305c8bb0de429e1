"""The events of a run, by their public address; `ultra.messages.events` defines them."""

from ultra.messages.events import (
    Chunk,
    Event,
    ModelFailed,
    ModelResponded,
    ModelRetrying,
    ModelStarted,
    PromptFitted,
    ReasoningChunk,
    RunCompleted,
    RunFailed,
    StageCompleted,
    StageStarted,
    ToolEnded,
    ToolsCalled,
    ToolStarted,
)

__all__ = [
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
]
