"""Ultra asks several language models the same question and merges their answers, on trio actors.

    from ultra import MultiLLMOrchestrator

    async with MultiLLMOrchestrator() as orchestrator:
        orchestrator.register_model("llama", llama_client, weight=1.0)
        results = await orchestrator.process_responses("Your prompt here")
        print(results["final_synthesis"])

The actor runtime below it is a library of its own: `ultra.actors` and `ultra.supervisor`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ultra.actors.breaker import BreakerPolicy
    from ultra.actors.hedging import Hedge
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
        ModelUnregistered,
        OrchestratorClosed,
        OrchestratorInUse,
        QuorumNotReached,
        StageFailed,
        UltraError,
        UsageError,
    )
    from ultra.events import Event
    from ultra.health import ModelHealth
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
    from ultra.pricing import Price
    from ultra.responses import StageResponses
    from ultra.streaming import RunStream

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
    "Hedge",
    "Limits",
    "MissingExtra",
    "ModelError",
    "ModelFailure",
    "ModelHealth",
    "ModelMetrics",
    "ModelResponse",
    "ModelUnregistered",
    "MultiLLMOrchestrator",
    "OrchestrationResult",
    "OrchestratorClosed",
    "OrchestratorInUse",
    "Price",
    "QuorumNotReached",
    "RetryPolicy",
    "RunStream",
    "Stage",
    "StageFailed",
    "StageResponses",
    "Timeouts",
    "UltraError",
    "Usage",
    "UsageError",
]

_HOMES: Final = {
    "BreakerPolicy": "ultra.actors.breaker",
    "Hedge": "ultra.actors.hedging",
    "Limits": "ultra.actors.limits",
    "Timeouts": "ultra.actors.model",
    "RetryPolicy": "ultra.actors.retry",
    "ActorError": "ultra.errors",
    "AllAttemptsFailed": "ultra.errors",
    "BadCall": "ultra.errors",
    "CircuitOpen": "ultra.errors",
    "ConfigError": "ultra.errors",
    "DeadlineExceeded": "ultra.errors",
    "MissingExtra": "ultra.errors",
    "ModelError": "ultra.errors",
    "ModelUnregistered": "ultra.errors",
    "OrchestratorClosed": "ultra.errors",
    "OrchestratorInUse": "ultra.errors",
    "QuorumNotReached": "ultra.errors",
    "StageFailed": "ultra.errors",
    "UltraError": "ultra.errors",
    "UsageError": "ultra.errors",
    "Event": "ultra.events",
    "ModelHealth": "ultra.health",
    "Completion": "ultra.messages",
    "ModelFailure": "ultra.messages",
    "ModelMetrics": "ultra.messages",
    "ModelResponse": "ultra.messages",
    "OrchestrationResult": "ultra.messages",
    "Usage": "ultra.messages",
    "MultiLLMOrchestrator": "ultra.orchestrator",
    "Stage": "ultra.pipeline",
    "Price": "ultra.pricing",
    "StageResponses": "ultra.responses",
    "RunStream": "ultra.streaming",
}
"""Where each public name is defined. Modules are imported when a name of theirs is first asked for, so
that ``import ultra`` costs next to nothing: pytest does it in every project, by the plugin in `ultra.faults`.
"""


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - it takes longer than the rest of Ultra

        return version("ultra-llm")
    if name in _HOMES:
        found = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
