"""`MultiLLMOrchestrator`: registry of models, planning, actor tree, streams, health."""

from ultra.orchestrator.orchestrator import MultiLLMOrchestrator

__all__ = ["MultiLLMOrchestrator"]
