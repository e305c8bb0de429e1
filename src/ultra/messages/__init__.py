"""Requests, responses, results and events, as values: each survives encoding and decoding."""

from ultra.messages.results import (
    Completion,
    FinishReason,
    ModelFailure,
    ModelMetrics,
    ModelResponse,
    OrchestrationResult,
    Status,
    Step,
    SynthesisSource,
    Usage,
)

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
