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
    from ultra.clients.pricing import Price, PriceTier
    from ultra.clients.providers import connect
    from ultra.durable.follower import RunFollower
    from ultra.errors import (
        ActorError,
        AllAttemptsFailed,
        BadCall,
        CircuitOpen,
        ClientCrashed,
        ConfigError,
        DeadlineExceeded,
        IdempotencyConflict,
        JournalDamaged,
        JournalUnavailable,
        MissingExtra,
        ModelError,
        ModelUnregistered,
        OrchestratorClosed,
        OrchestratorInUse,
        QuorumNotReached,
        RunCancelled,
        StageFailed,
        StrategyFailed,
        SubmittedRunFailed,
        UltraError,
        UnknownRun,
        UsageError,
    )
    from ultra.messages.chat import ChatMessage, FilePart, ImagePart, TextPart, ToolCall
    from ultra.messages.conversation import Conversation
    from ultra.messages.events import Event
    from ultra.messages.functions import FunctionTool
    from ultra.messages.options import RunOptions
    from ultra.messages.request import ModelRequest, SamplingOptions
    from ultra.messages.results import (
        Completion,
        ModelFailure,
        ModelMetrics,
        ModelResponse,
        OrchestrationResult,
        Step,
        Usage,
    )
    from ultra.messages.schema import JsonSchema
    from ultra.messages.tool_run import ToolRun
    from ultra.messages.tools import Tool, ToolChoice
    from ultra.orchestrator.health import ModelHealth
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
    from ultra.orchestrator.streams import RunStream
    from ultra.scoring.agreement import Scorer, agreement
    from ultra.stores.contracts import CacheStore
    from ultra.stores.journal_contract import Retention, RunRecord
    from ultra.stores.journal_sqlite import SqliteJournal
    from ultra.stores.memory import MemoryCache
    from ultra.stores.redis import RedisCache as RedisCache
    from ultra.stores.sqlite import SqliteCache
    from ultra.strategies.base import Answer, RunContext, Strategy
    from ultra.strategies.best_of import BestOf
    from ultra.strategies.cascade import Cascade
    from ultra.strategies.debate import Debate
    from ultra.strategies.fields import Fields
    from ultra.strategies.layers import Layers
    from ultra.strategies.rank import Rank
    from ultra.strategies.route import Route
    from ultra.strategies.self_consistency import SelfConsistency
    from ultra.strategies.stages import Stage, StageResponses
    from ultra.strategies.synthesize import Synthesize
    from ultra.strategies.vote import Vote
    from ultra.supervisor.spec import RestartIntensity

__all__ = [
    "ActorError",
    "AllAttemptsFailed",
    "Answer",
    "BadCall",
    "BestOf",
    "BreakerPolicy",
    "CacheStore",
    "Cascade",
    "ChatMessage",
    "CircuitOpen",
    "ClientCrashed",
    "Completion",
    "ConfigError",
    "Conversation",
    "DeadlineExceeded",
    "Debate",
    "Event",
    "Fields",
    "FilePart",
    "FunctionTool",
    "Hedge",
    "IdempotencyConflict",
    "ImagePart",
    "JournalDamaged",
    "JournalUnavailable",
    "JsonSchema",
    "Layers",
    "Limits",
    "MemoryCache",
    "MissingExtra",
    "ModelError",
    "ModelFailure",
    "ModelHealth",
    "ModelMetrics",
    "ModelRequest",
    "ModelResponse",
    "ModelUnregistered",
    "MultiLLMOrchestrator",
    "OrchestrationResult",
    "OrchestratorClosed",
    "OrchestratorInUse",
    "Price",
    "PriceTier",
    "QuorumNotReached",
    "Rank",
    "RestartIntensity",
    "Retention",
    "RetryPolicy",
    "Route",
    "RunCancelled",
    "RunContext",
    "RunFollower",
    "RunOptions",
    "RunRecord",
    "RunStream",
    "SamplingOptions",
    "Scorer",
    "SelfConsistency",
    "SqliteCache",
    "SqliteJournal",
    "Stage",
    "StageFailed",
    "StageResponses",
    "Step",
    "Strategy",
    "StrategyFailed",
    "SubmittedRunFailed",
    "Synthesize",
    "TextPart",
    "Timeouts",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "ToolRun",
    "UltraError",
    "UnknownRun",
    "Usage",
    "UsageError",
    "Vote",
    "agreement",
    "connect",
]

# `RedisCache` is public, too, but needs an extra: ``from ultra import *`` leaves it out.
_HOMES: Final = {
    "BreakerPolicy": "ultra.actors.model.breaker",
    "Hedge": "ultra.actors.model.hedging",
    "Limits": "ultra.actors.model.limits",
    "RetryPolicy": "ultra.actors.model.retry",
    "Timeouts": "ultra.actors.model.timeouts",
    "Price": "ultra.clients.pricing",
    "PriceTier": "ultra.clients.pricing",
    "connect": "ultra.clients.providers",
    "ActorError": "ultra.errors",
    "AllAttemptsFailed": "ultra.errors",
    "BadCall": "ultra.errors",
    "CircuitOpen": "ultra.errors",
    "ClientCrashed": "ultra.errors",
    "ConfigError": "ultra.errors",
    "DeadlineExceeded": "ultra.errors",
    "MissingExtra": "ultra.errors",
    "ModelError": "ultra.errors",
    "ModelUnregistered": "ultra.errors",
    "OrchestratorClosed": "ultra.errors",
    "OrchestratorInUse": "ultra.errors",
    "QuorumNotReached": "ultra.errors",
    "StageFailed": "ultra.errors",
    "StrategyFailed": "ultra.errors",
    "UltraError": "ultra.errors",
    "UsageError": "ultra.errors",
    "ChatMessage": "ultra.messages.chat",
    "FilePart": "ultra.messages.chat",
    "ImagePart": "ultra.messages.chat",
    "TextPart": "ultra.messages.chat",
    "ToolCall": "ultra.messages.chat",
    "Conversation": "ultra.messages.conversation",
    "Event": "ultra.messages.events",
    "FunctionTool": "ultra.messages.functions",
    "RunOptions": "ultra.messages.options",
    "ModelRequest": "ultra.messages.request",
    "SamplingOptions": "ultra.messages.request",
    "Completion": "ultra.messages.results",
    "ModelFailure": "ultra.messages.results",
    "ModelMetrics": "ultra.messages.results",
    "ModelResponse": "ultra.messages.results",
    "OrchestrationResult": "ultra.messages.results",
    "Step": "ultra.messages.results",
    "Usage": "ultra.messages.results",
    "JsonSchema": "ultra.messages.schema",
    "ToolRun": "ultra.messages.tool_run",
    "Tool": "ultra.messages.tools",
    "ToolChoice": "ultra.messages.tools",
    "ModelHealth": "ultra.orchestrator.health",
    "MultiLLMOrchestrator": "ultra.orchestrator.orchestrator",
    "RunStream": "ultra.orchestrator.streams",
    "Scorer": "ultra.scoring.agreement",
    "agreement": "ultra.scoring.agreement",
    "CacheStore": "ultra.stores.contracts",
    "MemoryCache": "ultra.stores.memory",
    "RedisCache": "ultra.stores.redis",
    "SqliteCache": "ultra.stores.sqlite",
    "Answer": "ultra.strategies.base",
    "RunContext": "ultra.strategies.base",
    "Strategy": "ultra.strategies.base",
    "BestOf": "ultra.strategies.best_of",
    "Fields": "ultra.strategies.fields",
    "SelfConsistency": "ultra.strategies.self_consistency",
    "Cascade": "ultra.strategies.cascade",
    "Debate": "ultra.strategies.debate",
    "Layers": "ultra.strategies.layers",
    "Rank": "ultra.strategies.rank",
    "Route": "ultra.strategies.route",
    "Stage": "ultra.strategies.stages",
    "StageResponses": "ultra.strategies.stages",
    "Synthesize": "ultra.strategies.synthesize",
    "Vote": "ultra.strategies.vote",
    "IdempotencyConflict": "ultra.errors",
    "JournalDamaged": "ultra.errors",
    "JournalUnavailable": "ultra.errors",
    "RunCancelled": "ultra.errors",
    "SubmittedRunFailed": "ultra.errors",
    "UnknownRun": "ultra.errors",
    "RunFollower": "ultra.durable.follower",
    "RunRecord": "ultra.stores.journal_contract",
    "Retention": "ultra.stores.journal_contract",
    "SqliteJournal": "ultra.stores.journal_sqlite",
    "RestartIntensity": "ultra.supervisor.spec",
}
"""Where each public name is defined. Modules are imported when a name of theirs is first asked for, so
that ``import ultra`` costs next to nothing: pytest does it in every project, by the plugin in
`ultra.simulation`.
"""

_lazy, __dir__ = lazy_names(__name__, _HOMES)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - it takes longer than the rest of Ultra

        return version("ultra-llm")
    return _lazy(name)
