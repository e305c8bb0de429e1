"""The guide's import, for a checkout: ``from src.orchestrator import MultiLLMOrchestrator``."""

from ultra.orchestrator.orchestrator import MultiLLMOrchestrator

__all__ = ["MultiLLMOrchestrator"]
