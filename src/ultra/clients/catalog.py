"""The providers that Ultra knows, as data: where each is, and how it is asked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from msgspec import Struct

from ultra.clients.quirks import Quirks

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PROVIDERS", "Provider", "known_quirks", "known_window"]


class Provider(Struct, frozen=True, kw_only=True):
    """Where one provider is and how it is asked.

    Another package adds a provider by an entry point of the group ``ultra.providers``, whose name is that of
    the provider and whose object is a `Provider`. In its ``pyproject.toml``::

        [project.entry-points."ultra.providers"]
        acme = "acme_ultra:ACME"

    and in its module ``acme_ultra``::

        ACME = Provider(
            client="ultra.clients:OpenAIClient",  # Acme speaks OpenAI's dialect
            base_url="https://api.acme.example/v1",
            keys=("ACME_API_KEY",),
            example="acme:large",
        )

    Then ``connect("acme:large")`` makes a client of it, and ``ultra.toml`` and the command know it. The
    package is imported when its provider is asked for; the names of Ultra's own providers cannot be taken.

    Attributes:
        client: what makes a client, as ``module:name``: a class or a function that takes the model and, by
            keyword, `provider`, `base_url`, `api_key`, `options` (`CallOptions`), `limits` (`HTTPLimits`)
            and, where it is given, `transport`. It returns any client that can be registered.
        base_url: of its endpoint; None: it has none of its own.
        keys: variables of the environment that may hold the key; the first that is set counts.
        tokens: which of `keys` hold a bearer token of a gateway, sent as ``Authorization: Bearer``. At
            another address than `base_url` these come first.
        urls: variables of the environment that may hold another `base_url`, likewise.
        needs_key: whether `base_url` answers nobody without a key: another endpoint may need none.
        options: names of further options, which the client takes by keyword.
        example: a model of it, as `connect` takes it.
    """

    client: str
    base_url: str | None = None
    keys: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    needs_key: bool = True
    options: tuple[str, ...] = ()
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
        options=("api_version",),
        example="azure:my-deployment",
    ),
    "anthropic": Provider(
        client="ultra.clients.http.dialect_clients:AnthropicClient",
        base_url="https://api.anthropic.com",
        keys=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
        tokens=("ANTHROPIC_AUTH_TOKEN",),
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
"""Ultra's own providers, by the name that stands before the colon."""


class _Known(Struct, frozen=True, kw_only=True):
    """Where `quirks` are known: at this provider, at this host and those below it, for models so called.

    What is None is no condition; `model` is a regular expression for the beginning of the name.
    """

    quirks: Quirks
    provider: str | None = None
    host: str | None = None
    model: str | None = None

    def holds(self, provider: str, host: str, model: str) -> bool:
        return (
            self.provider in {None, provider}
            and (self.host is None or host == self.host or host.endswith(f".{self.host}"))
            and (self.model is None or re.match(self.model, model) is not None)
        )


_COMPLETION_TOKENS: Final = Quirks(renamed=(("max_tokens", "max_completion_tokens"),))

_KNOWN: Final = (
    # Reasoning models refuse the old name, most other servers do not know the new one.
    _Known(host="api.openai.com", quirks=_COMPLETION_TOKENS),
    _Known(provider="azure", model=r"o[1-9]|gpt-5", quirks=_COMPLETION_TOKENS),
    _Known(
        host="api.openai.com",
        model=r"o\d+-pro|gpt-5(\.\d+)?-pro|gpt-5\S*-codex|codex-|o\d\S*-deep-research|computer-use-",
        quirks=Quirks(responses=True),
    ),
    # Reports usage unasked, and refuses fields that it does not know.
    _Known(
        provider="mistral",
        quirks=Quirks(renamed=(("seed", "random_seed"),), omitted=("stream_options.include_usage",)),
    ),
    _Known(provider="gemini", model=r"(models/)?gemma-[123]", quirks=Quirks(no_system=True)),
    _Known(provider="gemini", model=r"(models/)?gemini-2\.5", quirks=Quirks(thinking_budget=True)),
)


def known_quirks(provider: str, base_url: str, model: str) -> Quirks:
    """Return what is known of this model at this address."""
    host = urlsplit(base_url).hostname or ""
    found = Quirks()
    for known in _KNOWN:
        if known.holds(provider, host, model):
            found = found.joined(known.quirks)
    return found


_WINDOWS: Final[Mapping[str, tuple[tuple[str, int], ...]]] = {
    "openai": (
        (r"gpt-5", 400_000),
        (r"gpt-4\.1", 1_047_576),
        (r"(chatgpt-)?gpt-?4o|chatgpt-4o|gpt-4-turbo|gpt-4-\d+-preview|gpt-4\.5|o1-(mini|preview)", 128_000),
        (r"gpt-4-32k", 32_768),
        (r"gpt-4(-\d{4})?$", 8_192),
        (r"gpt-3\.5-turbo", 16_385),
        (r"o[1-9]|codex-", 200_000),
    ),
    "anthropic": ((r"claude-", 200_000),),
    "gemini": (
        (r"gemini-1\.5-pro", 2_097_152),
        (r"gemini-", 1_048_576),
        (r"gemma-3-1b", 32_768),
        (r"gemma-3n", 8_192),
        (r"gemma-", 131_072),
    ),
    "mistral": (
        (r"codestral", 256_000),
        (r"(open-)?mistral-(tiny|7b)", 32_768),
        (r"open-mixtral-8x7b", 32_768),
        (r"open-mixtral-8x22b", 65_536),
        (r"mistral-|ministral-|magistral-|pixtral-|devstral-|open-mistral-nemo", 128_000),
    ),
    "deepseek": ((r"deepseek-", 65_536),),
    "xai": ((r"grok-4-fast|grok-4-1-fast", 2_000_000), (r"grok-(4|code)", 256_000), (r"grok-", 131_072)),
    "groq": (
        (r"llama-3|meta-llama/llama-4|openai/gpt-oss|qwen/|moonshotai/", 131_072),
        (r"gemma2|llama3-", 8_192),
    ),
    "ollama": ((r"", 32_768),),
}
"""Tokens that prompt and answer may have together, by provider and the beginning of the model's name.

The first that matches counts; a number is rather too small than too large. What a server of one's own allows
is its own setting (vLLM, llama.cpp), so it is told as ``context_window=``. Ollama gives each call the window
that the call asks for; this is how far Ultra goes without being told.
"""


def known_window(provider: str, model: str) -> int | None:
    """Return how many tokens prompt and answer of this model may have together; None: it is not known."""
    name = model.lower().removeprefix("models/")
    rows = _WINDOWS.get(provider, ())
    if provider in {"openrouter", "together"}:  # they put the maker's name before that of the model
        maker, _, name = name.partition("/")
        rows = _WINDOWS.get({"google": "gemini", "x-ai": "xai", "mistralai": "mistral"}.get(maker, maker), ())
    return next((tokens for pattern, tokens in rows if re.match(pattern, name)), None)
