"""Clients of language models.

`connect` makes one from ``provider:model``; `provider_statuses` says which can be used here. Any object
of the shape of `ModelClient` is as good. Every name is imported when it is first asked for: orchestrators
need modules of this package, and a program with clients of its own needs no others.
"""

from typing import TYPE_CHECKING, Final

from ultra._support.lazy import lazy_names
from ultra._support.old_names import old_names

if TYPE_CHECKING:
    from ultra.clients.catalog import Facts, ModelInfo, Provider, model_info
    from ultra.clients.dialects.model_lists import OfferedModel
    from ultra.clients.http.client import HTTPClient
    from ultra.clients.http.completion_stream import CompletionStream
    from ultra.clients.http.dialect_clients import (
        AnthropicClient,
        AzureOpenAIClient,
        GeminiClient,
        OllamaClient,
        OpenAIClient,
    )
    from ultra.clients.http.limits import HTTPLimits
    from ultra.clients.listing import list_models
    from ultra.clients.local.client import LocalClient
    from ultra.clients.options import CallOptions
    from ultra.clients.protocol import ModelClient, RequestClient, StartedClient, StreamingClient
    from ultra.clients.providers import ProviderStatus, connect, provider_statuses
    from ultra.messages.reasoning import ReasoningDelta

__all__ = [
    "AnthropicClient",
    "AzureOpenAIClient",
    "CallOptions",
    "CompletionStream",
    "Facts",
    "GeminiClient",
    "HTTPClient",
    "HTTPLimits",
    "LocalClient",
    "ModelClient",
    "ModelInfo",
    "OfferedModel",
    "OllamaClient",
    "OpenAIClient",
    "Provider",
    "ProviderStatus",
    "ReasoningDelta",
    "RequestClient",
    "StartedClient",
    "StreamingClient",
    "connect",
    "list_models",
    "model_info",
    "provider_statuses",
]

_HOMES: Final = {
    "AnthropicClient": "ultra.clients.http.dialect_clients",
    "AzureOpenAIClient": "ultra.clients.http.dialect_clients",
    "CallOptions": "ultra.clients.options",
    "CompletionStream": "ultra.clients.http.completion_stream",
    "GeminiClient": "ultra.clients.http.dialect_clients",
    "HTTPClient": "ultra.clients.http.client",
    "HTTPLimits": "ultra.clients.http.limits",
    "LocalClient": "ultra.clients.local.client",
    "ModelClient": "ultra.clients.protocol",
    "OllamaClient": "ultra.clients.http.dialect_clients",
    "OpenAIClient": "ultra.clients.http.dialect_clients",
    "Facts": "ultra.clients.catalog",
    "ModelInfo": "ultra.clients.catalog",
    "OfferedModel": "ultra.clients.dialects.model_lists",
    "Provider": "ultra.clients.catalog",
    "ProviderStatus": "ultra.clients.providers",
    "ReasoningDelta": "ultra.messages.reasoning",
    "RequestClient": "ultra.clients.protocol",
    "StartedClient": "ultra.clients.protocol",
    "StreamingClient": "ultra.clients.protocol",
    "connect": "ultra.clients.providers",
    "list_models": "ultra.clients.listing",
    "model_info": "ultra.clients.catalog",
    "provider_statuses": "ultra.clients.providers",
}

_lazy, __dir__ = lazy_names(__name__, _HOMES)

# `ultra.Limits` is another thing, the limits of a model.
if TYPE_CHECKING:
    Limits = HTTPLimits
else:
    __getattr__ = old_names(__name__, {"Limits": "HTTPLimits"}, _lazy)
