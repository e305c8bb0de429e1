"""The guide's API: `MultiLLMOrchestrator`, its registry of models, its actors and its streams."""

from ultra.orchestrator.orchestrator import MultiLLMOrchestrator

__all__ = ["MultiLLMOrchestrator"]
