"""Ultra asks several language models the same question and merges their answers, on trio actors.

    from ultra import MultiLLMOrchestrator

    async with MultiLLMOrchestrator() as orchestrator:
        orchestrator.register_model("llama", llama_client, weight=1.0)
        results = await orchestrator.process_responses("Your prompt here")
        print(results["final_synthesis"])

The actor runtime below it is a library of its own: `ultra.actors` and `ultra.supervisor`.
"""

from typing import TYPE_CHECKING, Final

from ultra._support.lazy import lazy_names

if TYPE_CHECKING:
    from ultra.actors.model.breaker import BreakerPolicy
    from ultra.actors.model.hedging import Hedge
    from ultra.actors.model.limits import Limits
    from ultra.actors.model.retry import RetryPolicy
    from ultra.actors.model.timeouts import Timeouts
    from ultra.clients.pricing import Price
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
    from ultra.messages.events import Event
    from ultra.messages.results import (
        Completion,
        ModelFailure,
        ModelMetrics,
        ModelResponse,
        OrchestrationResult,
        Usage,
    )
    from ultra.orchestrator.health import ModelHealth
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
    from ultra.orchestrator.streams import RunStream
    from ultra.strategies.stages import Stage, StageResponses

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
    "BreakerPolicy": "ultra.actors.model.breaker",
    "Hedge": "ultra.actors.model.hedging",
    "Limits": "ultra.actors.model.limits",
    "Timeouts": "ultra.actors.model.timeouts",
    "RetryPolicy": "ultra.actors.model.retry",
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
    "Event": "ultra.messages.events",
    "ModelHealth": "ultra.orchestrator.health",
    "Completion": "ultra.messages.results",
    "ModelFailure": "ultra.messages.results",
    "ModelMetrics": "ultra.messages.results",
    "ModelResponse": "ultra.messages.results",
    "OrchestrationResult": "ultra.messages.results",
    "Usage": "ultra.messages.results",
    "MultiLLMOrchestrator": "ultra.orchestrator.orchestrator",
    "Stage": "ultra.strategies.stages",
    "Price": "ultra.clients.pricing",
    "StageResponses": "ultra.strategies.stages",
    "RunStream": "ultra.orchestrator.streams",
}
"""Where each public name is defined. Modules are imported when a name of theirs is first asked for, so
that ``import ultra`` costs next to nothing: pytest does it in every project, by the plugin in `ultra.faults`.
"""


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
