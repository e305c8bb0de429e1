"""Clients of language models.

`connect` makes one from ``provider:model``; `provider_statuses` says which can be used here. Any object
of the shape of `ModelClient` is as good. The modules of the providers are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ultra.clients.options import CallOptions
from ultra.clients.protocol import ModelClient, StreamingClient
from ultra.clients.providers import ProviderStatus, connect, provider_statuses
from ultra.clients.transport import Limits

if TYPE_CHECKING:
    from ultra.clients.anthropic import AnthropicClient
    from ultra.clients.gemini import GeminiClient
    from ultra.clients.http import HTTPClient
    from ultra.clients.local import LocalClient
    from ultra.clients.ollama import OllamaClient
    from ultra.clients.openai import AzureOpenAIClient, OpenAIClient
    from ultra.clients.streams import CompletionStream

__all__ = [
    "AnthropicClient",
    "AzureOpenAIClient",
    "CallOptions",
    "CompletionStream",
    "GeminiClient",
    "HTTPClient",
    "Limits",
    "LocalClient",
    "ModelClient",
    "OllamaClient",
    "OpenAIClient",
    "ProviderStatus",
    "StreamingClient",
    "connect",
    "provider_statuses",
]

_LAZY: Final = {
    "AnthropicClient": "ultra.clients.anthropic",
    "AzureOpenAIClient": "ultra.clients.openai",
    "CompletionStream": "ultra.clients.streams",
    "GeminiClient": "ultra.clients.gemini",
    "HTTPClient": "ultra.clients.http",
    "LocalClient": "ultra.clients.local",
    "OllamaClient": "ultra.clients.ollama",
    "OpenAIClient": "ultra.clients.openai",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class of any of the modules
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
