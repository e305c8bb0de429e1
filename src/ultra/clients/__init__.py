"""Clients of language models.

`connect` makes one from ``provider:model``; `provider_statuses` says which can be used here. Any object
of the shape of `ModelClient` is as good. Every name is imported when it is first asked for: orchestrators
need modules of this package, and a program with clients of its own needs no others.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ultra.clients.anthropic import AnthropicClient
    from ultra.clients.gemini import GeminiClient
    from ultra.clients.http import HTTPClient
    from ultra.clients.local import LocalClient
    from ultra.clients.ollama import OllamaClient
    from ultra.clients.openai import AzureOpenAIClient, OpenAIClient
    from ultra.clients.options import CallOptions
    from ultra.clients.protocol import ModelClient, StreamingClient
    from ultra.clients.providers import ProviderStatus, connect, provider_statuses
    from ultra.clients.streams import CompletionStream
    from ultra.clients.transport import Limits

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

_HOMES: Final = {
    "AnthropicClient": "ultra.clients.anthropic",
    "AzureOpenAIClient": "ultra.clients.openai",
    "CallOptions": "ultra.clients.options",
    "CompletionStream": "ultra.clients.streams",
    "GeminiClient": "ultra.clients.gemini",
    "HTTPClient": "ultra.clients.http",
    "Limits": "ultra.clients.transport",
    "LocalClient": "ultra.clients.local",
    "ModelClient": "ultra.clients.protocol",
    "OllamaClient": "ultra.clients.ollama",
    "OpenAIClient": "ultra.clients.openai",
    "ProviderStatus": "ultra.clients.providers",
    "StreamingClient": "ultra.clients.protocol",
    "connect": "ultra.clients.providers",
    "provider_statuses": "ultra.clients.providers",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class or a function of any of the modules
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
