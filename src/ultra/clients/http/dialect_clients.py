"""The clients that `ultra.clients` exports: `HTTPClient` with the dialect of each kind of API."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from msgspec.structs import replace

from ultra._support.checks import check_choice
from ultra._support.secrecy import hiding_frames
from ultra.clients.catalog.model_info import Facts
from ultra.clients.dialects.anthropic import AnthropicMessages
from ultra.clients.dialects.gemini import GeminiGenerate
from ultra.clients.dialects.ollama import OllamaChat
from ultra.clients.dialects.openai_chat import AzureOpenAIChat, OpenAIChat
from ultra.clients.http.client import HTTPClient
from ultra.clients.quirks import Quirks

if TYPE_CHECKING:
    from typing import Unpack

    from ultra.clients.dialects.base import Dialect
    from ultra.clients.http.client import HTTPSettings

__all__ = ["AnthropicClient", "AzureOpenAIClient", "GeminiClient", "OllamaClient", "OpenAIClient"]


OpenAIApi = Literal["chat", "responses"]
"""In which of OpenAI's two APIs a model is asked: chat completions, or responses."""


class _DialectClient(HTTPClient):
    """An `HTTPClient` that makes its dialect itself.

    Args:
        model: the provider's name of the model.
        provider: named in errors; the first half of ``provider:model``.
        base_url: of the endpoint, as the provider's official client takes it. A user and a password in it
            are sent as HTTP Basic, unless a key takes the same header.
        settings: see `HTTPClient`.
    """

    dialect_type: ClassVar[type[Dialect]]

    @hiding_frames
    def __init__(self, model: str, *, provider: str, base_url: str, **settings: Unpack[HTTPSettings]) -> None:
        super().__init__(self.dialect_type(model, provider=provider, base_url=base_url), **settings)


class OpenAIClient(_DialectClient):
    """A model behind ``POST {base_url}/chat/completions``, at OpenAI and all who speak its dialect.

    Args:
        model: the provider's name of the model.
        provider: named in errors; the first half of ``provider:model``.
        base_url: ends in the version, such as ``https://api.openai.com/v1``. It may be a whole address.
        api: ``"chat"``, or ``"responses"``: it is asked at ``{base_url}/responses``. By default chat, but
            where `base_url` ends in ``/responses``. A model that answers there alone is asked there anyway.
        settings: see `HTTPClient`.

    Raises:
        BadCall: there is no such `api`.
    """

    dialect_type = OpenAIChat

    @hiding_frames
    def __init__(
        self,
        model: str,
        *,
        provider: str,
        base_url: str,
        api: OpenAIApi | None = None,
        **settings: Unpack[HTTPSettings],
    ) -> None:
        super().__init__(model, provider=provider, base_url=base_url, **_at(api, base_url, settings))


class AzureOpenAIClient(HTTPClient):
    """A deployment at Azure.

    `base_url` is the resource (``https://name.openai.azure.com``; `model` is then the deployment) or an
    endpoint with a path (``…/openai/v1``, ``https://name.services.ai.azure.com/models``).

    Args:
        model: the deployment, or the model where `base_url` has a path.
        provider: named in errors; the first half of ``provider:model``.
        base_url: see above.
        api_version: Azure's, as in ``2024-10-21``; sent with a bare resource, and wherever it is given.
        api: see `OpenAIClient`.
        settings: see `HTTPClient`.

    Raises:
        BadCall: there is no such `api`.
    """

    @hiding_frames
    def __init__(
        self,
        model: str,
        *,
        provider: str,
        base_url: str,
        api_version: str | None = None,
        api: OpenAIApi | None = None,
        **settings: Unpack[HTTPSettings],
    ) -> None:
        dialect = AzureOpenAIChat(model, provider=provider, base_url=base_url, api_version=api_version)
        super().__init__(dialect, **_at(api, base_url, settings))


def _at(api: OpenAIApi | None, base_url: str, settings: HTTPSettings) -> HTTPSettings:
    """Return the settings with what `api` says of the model. Raises `BadCall`."""
    if api is not None:
        check_choice("api", api, OpenAIApi)
    elif base_url.partition("?")[0].rstrip("/").endswith("/responses"):
        api = "responses"
    if api != "responses":
        return settings
    info = settings.get("info") or Facts()
    return {**settings, "info": replace(info, quirks=info.quirks.joined(Quirks(responses=True)))}


class AnthropicClient(_DialectClient):
    """A model behind ``POST {base_url}/v1/messages``.

    `seed` does not exist there and is left out; without `max_tokens` an answer ends after 4096 tokens,
    since the API requires a number. `reasoning_effort` is sent as ``output_config.effort``.
    """

    dialect_type = AnthropicMessages


class GeminiClient(_DialectClient):
    """A model behind ``POST {base_url}/v1beta/models/{model}:generateContent``.

    A `base_url` with a path stands for everything before ``/models``, as at Vertex AI, whose bearer
    token goes into `extra_headers`. `reasoning_effort` is sent as Gemini's thinking level.
    """

    dialect_type = GeminiGenerate


class OllamaClient(_DialectClient):
    """A model behind ``POST {base_url}/api/chat``.

    `base_url` may be written like ``OLLAMA_HOST``: a host alone, or a host and a port.
    `reasoning_effort` is sent as ``think``.
    """

    dialect_type = OllamaChat
