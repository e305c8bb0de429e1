"""Ultra asks several language models the same question and merges their answers, on trio actors.

    from ultra import MultiLLMOrchestrator

    async with MultiLLMOrchestrator() as orchestrator:
        orchestrator.register_model("llama", llama_client, weight=1.0)
        results = await orchestrator.process_responses("Your prompt here")
        print(results["final_synthesis"])

The actor runtime below it is a library of its own: `ultra.actors` and `ultra.supervisor`.
"""

from ultra.actors.breaker import BreakerPolicy
from ultra.actors.limits import Limits
from ultra.actors.model import Timeouts
from ultra.actors.retry import RetryPolicy
from ultra.errors import (
    ActorError,
    AllAttemptsFailed,
    BadCall,
    CircuitOpen,
    ConfigError,
    DeadlineExceeded,
    MissingExtra,
    ModelError,
    OrchestratorClosed,
    OrchestratorInUse,
    QuorumNotReached,
    StageFailed,
    UltraError,
    UsageError,
)
from ultra.events import Event
from ultra.messages import (
    Completion,
    ModelFailure,
    ModelMetrics,
    ModelResponse,
    OrchestrationResult,
    Usage,
)
from ultra.orchestrator import MultiLLMOrchestrator
from ultra.pipeline import Stage
from ultra.responses import StageResponses

__all__ = [
    "ActorError",
    "AllAttemptsFailed",
    "BadCall",
    "BreakerPolicy",
    "CircuitOpen",
    "Completion",
    "ConfigError",
    "DeadlineExceeded",
    "Event",
    "Limits",
    "MissingExtra",
    "ModelError",
    "ModelFailure",
    "ModelMetrics",
    "ModelResponse",
    "MultiLLMOrchestrator",
    "OrchestrationResult",
    "OrchestratorClosed",
    "OrchestratorInUse",
    "QuorumNotReached",
    "RetryPolicy",
    "Stage",
    "StageFailed",
    "StageResponses",
    "Timeouts",
    "UltraError",
    "Usage",
    "UsageError",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - it takes longer than the rest of Ultra

        return version("ultra-llm")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
