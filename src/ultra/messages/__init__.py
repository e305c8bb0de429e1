"""What is said: requests to models, what they answer, results of runs, events. All of it are values."""

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
