"""Which providers there are, where they are, and which of them can be used here."""

from __future__ import annotations

import os
import socket
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from ultra.clients.http.limits import HTTPLimits
from ultra.clients.options import CallOptions
from ultra.clients.wire.addresses import shown_url
from ultra.errors import BadCall, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ultra.clients.http.client import HTTPClient

__all__ = ["ProviderStatus", "connect", "key_variable", "provider_statuses"]

_PROBE: Final = 0.2  # [s]; a server on this machine answers in less

_THIS_MACHINE: Final = ("localhost", "127.0.0.1", "::1")


class Provider(Struct, frozen=True, kw_only=True):
    """Where one provider is and how it is spoken to.

    `client` names a class as ``module:Class``. `keys` and `urls` are environment variables, the first
    that is set counts. `needs_key` is about `base_url` itself: another endpoint may need none.
    """

    client: str
    base_url: str | None = None
    keys: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    needs_key: bool = True
    example: str = ""


_OPENAI: Final = "ultra.clients.http.dialect_clients:OpenAIClient"

PROVIDERS: Final[Mapping[str, Provider]] = {
    "local": Provider(
        client="ultra.clients.local.client:LocalClient", needs_key=False, example="local:careful"
    ),
    "openai": Provider(
        client=_OPENAI,
        base_url="https://api.openai.com/v1",
        keys=("OPENAI_API_KEY",),
        urls=("OPENAI_BASE_URL",),
        example="openai:gpt-4o-mini",
    ),
    "azure": Provider(
        client="ultra.clients.http.dialect_clients:AzureOpenAIClient",
        keys=("AZURE_OPENAI_API_KEY",),
        urls=("AZURE_OPENAI_ENDPOINT",),
        example="azure:my-deployment",
    ),
    "anthropic": Provider(
        client="ultra.clients.http.dialect_clients:AnthropicClient",
        base_url="https://api.anthropic.com",
        keys=("ANTHROPIC_API_KEY",),
        urls=("ANTHROPIC_BASE_URL",),
        example="anthropic:claude-sonnet-4-5",
    ),
    "gemini": Provider(
        client="ultra.clients.http.dialect_clients:GeminiClient",
        base_url="https://generativelanguage.googleapis.com",
        keys=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        urls=("GOOGLE_GEMINI_BASE_URL",),
        example="gemini:gemini-2.5-flash",
    ),
    "ollama": Provider(
        client="ultra.clients.http.dialect_clients:OllamaClient",
        base_url="http://127.0.0.1:11434",
        keys=("OLLAMA_API_KEY",),
        urls=("OLLAMA_HOST",),
        needs_key=False,
        example="ollama:llama3.2",
    ),
    "openrouter": Provider(
        client=_OPENAI,
        base_url="https://openrouter.ai/api/v1",
        keys=("OPENROUTER_API_KEY",),
        example="openrouter:deepseek/deepseek-chat",
    ),
    "groq": Provider(
        client=_OPENAI,
        base_url="https://api.groq.com/openai/v1",
        keys=("GROQ_API_KEY",),
        example="groq:llama-3.3-70b-versatile",
    ),
    "mistral": Provider(
        client=_OPENAI,
        base_url="https://api.mistral.ai/v1",
        keys=("MISTRAL_API_KEY",),
        example="mistral:mistral-small-latest",
    ),
    "deepseek": Provider(
        client=_OPENAI,
        base_url="https://api.deepseek.com",
        keys=("DEEPSEEK_API_KEY",),
        example="deepseek:deepseek-chat",
    ),
    "xai": Provider(
        client=_OPENAI, base_url="https://api.x.ai/v1", keys=("XAI_API_KEY",), example="xai:grok-4"
    ),
    "together": Provider(
        client=_OPENAI,
        base_url="https://api.together.xyz/v1",
        keys=("TOGETHER_API_KEY",),
        example="together:meta-llama/Llama-3.3-70B-Instruct-Turbo",
    ),
    "vllm": Provider(
        client=_OPENAI,
        base_url="http://localhost:8000/v1",
        keys=("VLLM_API_KEY",),
        needs_key=False,
        example="vllm:Qwen/Qwen3-8B",
    ),
    "llamacpp": Provider(
        client=_OPENAI,
        base_url="http://localhost:8080/v1",
        keys=("LLAMA_API_KEY",),
        needs_key=False,
        example="llamacpp:default",
    ),
}
"""Every provider by the name that stands before the colon."""


class ProviderStatus(Struct, frozen=True, kw_only=True):
    """Whether a provider can be used here; `detail` says by what it can, or why it cannot."""

    name: str
    available: bool
    detail: str
    example: str


def connect(
    name: str,
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    **options: Any,  # noqa: ANN401 - each has its own type, checked below
) -> HTTPClient:
    """Make the client of a model; nothing is sent before it is asked something.

    Args:
        name: ``provider:model``, such as ``openai:gpt-4o-mini`` or ``local:careful``. Everything behind
            the first colon is the provider's own name of the model. ``local`` alone is its first voice.
        api_key: by default from the environment, in the provider's usual variable.
        base_url: another endpoint that speaks the provider's protocol, written as the provider's official
            client takes it; by default from the environment, then the provider's own.
        options: defaults of every call (temperature, max_tokens, … see `CallOptions`), ``timeout``,
            ``connect_timeout`` and ``read_timeout`` [s], ``max_response_bytes``, ``transport`` (an httpx
            transport in place of the network), and for Azure ``api_version``.

    Raises:
        BadCall: no such provider or option, no model named, or no key found; the message names the choices.
        MissingExtra: ``local`` needs packages that are not installed.
    """
    if not isinstance(name, str):
        raise BadCall(f"the model to connect to is {name!r}; give text such as 'openai:gpt-4o-mini'")
    for what, given in (("api_key", api_key), ("base_url", base_url)):
        if not (given is None or isinstance(given, str)):
            raise BadCall(f"{what} must be text, not {type(given).__name__}")
    provider_name, _, model = name.partition(":")
    provider = _find(provider_name)
    settings = _settings(provider_name, options)
    if provider_name == "local":
        if api_key is not None or base_url is not None or "transport" in settings:
            raise BadCall("the embedded model takes no api_key, base_url or transport")
        return _client_class(provider)(*[model] if model else [], **settings)
    if not model:
        raise BadCall(f"{name!r} names no model; write it behind the provider, as in {provider.example!r}")
    found_url = base_url or _first(provider.urls) or provider.base_url
    if found_url is None:
        raise BadCall(f"{provider_name} has no endpoint of its own: pass base_url or set {provider.urls[0]}")
    found_key = api_key or _first(provider.keys)
    if not found_key and provider.needs_key and found_url in {provider.base_url, _first(provider.urls)}:
        raise BadCall(f"no key for {provider_name}: pass api_key or set {' or '.join(provider.keys)}")
    return _client_class(provider)(
        model, provider=provider_name, base_url=found_url, api_key=found_key, **settings
    )


def key_variable(provider: str) -> str | None:
    """The variable of the environment that this provider's key is taken from; None where none is set."""
    known = PROVIDERS.get(provider)
    return next((name for name in known.keys if os.environ.get(name, "").strip()), None) if known else None


def provider_statuses() -> list[ProviderStatus]:
    """Say of every provider whether it can be used here, without calling any of them.

    A key that is set counts as usable, unchecked. For servers that run on this machine a connection is
    tried, which blocks for up to a fifth of a second each.
    """
    return [_status(name, provider) for name, provider in PROVIDERS.items()]


def _status(name: str, provider: Provider) -> ProviderStatus:
    available, detail = _judge(provider)
    return ProviderStatus(name=name, available=available, detail=detail, example=provider.example)


def _judge(provider: Provider) -> tuple[bool, str]:
    if provider.base_url is None and provider.urls and not _first(provider.urls):
        return False, f"{provider.urls[0]} is not set"
    if provider.client == PROVIDERS["local"].client:
        return _judge_embedded()
    key = next((variable for variable in provider.keys if os.environ.get(variable)), None)
    if provider.needs_key:
        return (True, f"key in {key}") if key else (False, f"{' or '.join(provider.keys)} is not set")
    return _judge_server(_first(provider.urls) or provider.base_url or "")


def _judge_embedded() -> tuple[bool, str]:
    from ultra.clients.local.embedded import find_model  # noqa: PLC0415 - only where it is asked for

    try:
        model = find_model()
    except MissingExtra as missing:
        return False, str(missing)
    return True, f"{model.stem}, embedded"


def _judge_server(url: str) -> tuple[bool, str]:
    shown = shown_url(url)
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return False, f"{shown} is no address"
    if host not in _THIS_MACHINE:
        return True, f"the server at {shown}, not tried"
    try:
        socket.create_connection((host, port or 80), _PROBE).close()
    except OSError:
        return False, f"no server listens at {shown}"
    return True, f"a server listens at {shown}"


def _find(name: str) -> Provider:
    if name not in PROVIDERS:
        raise BadCall(f"there is no provider {name!r}; the providers are: {', '.join(PROVIDERS)}")
    return PROVIDERS[name]


def _client_class(provider: Provider) -> Callable[..., HTTPClient]:
    module, _, name = provider.client.partition(":")
    found: Callable[..., HTTPClient] = getattr(import_module(module), name)
    return found


def _first(variables: tuple[str, ...]) -> str | None:
    return next((value for variable in variables if (value := os.environ.get(variable, "").strip())), None)


def _settings(provider: str, given: dict[str, Any]) -> dict[str, Any]:
    """Sort `given` into the arguments of a client."""
    calls = {name: value for name, value in given.items() if name in CallOptions.__struct_fields__}
    limits = {name: value for name, value in given.items() if name in HTTPLimits.__struct_fields__}
    further = ("transport", *(("api_version",) if provider == "azure" else ()))
    settings = {name: value for name, value in given.items() if name in further}
    transport = given.get("transport")
    if not (transport is None or hasattr(transport, "handle_async_request")):
        raise BadCall(f"transport must be an httpx.AsyncBaseTransport, not {type(transport).__name__}")
    for name in given:
        if name not in {*calls, *limits, *settings}:
            choices = ", ".join((*CallOptions.__struct_fields__, *HTTPLimits.__struct_fields__, *further))
            raise BadCall(f"unknown option {name!r}; the options of {provider} are: {choices}")
    try:
        checked = msgspec.convert(limits, HTTPLimits)
    except msgspec.ValidationError as error:
        raise BadCall(f"a limit of {provider} is not allowed: {error}") from None
    return {"options": CallOptions().override(**calls), "limits": checked, **settings}
