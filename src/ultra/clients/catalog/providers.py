"""The providers that Ultra knows, as data: where each is, and how it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PROVIDERS", "Provider"]


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
            and, where they are given, `transport` and `info` (`Facts`). It returns any client that can be
            registered.
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
_APIS: Final = ("api",)

PROVIDERS: Final[Mapping[str, Provider]] = {
    "local": Provider(
        client="ultra.clients.local.client:LocalClient", needs_key=False, example="local:careful"
    ),
    "openai": Provider(
        client=_OPENAI,
        options=_APIS,
        base_url="https://api.openai.com/v1",
        keys=("OPENAI_API_KEY",),
        urls=("OPENAI_BASE_URL",),
        example="openai:gpt-4o-mini",
    ),
    "azure": Provider(
        client="ultra.clients.http.dialect_clients:AzureOpenAIClient",
        keys=("AZURE_OPENAI_API_KEY",),
        urls=("AZURE_OPENAI_ENDPOINT",),
        options=("api_version", *_APIS),
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
        options=_APIS,
        base_url="https://openrouter.ai/api/v1",
        keys=("OPENROUTER_API_KEY",),
        example="openrouter:deepseek/deepseek-chat",
    ),
    "groq": Provider(
        client=_OPENAI,
        options=_APIS,
        base_url="https://api.groq.com/openai/v1",
        keys=("GROQ_API_KEY",),
        example="groq:llama-3.3-70b-versatile",
    ),
    "mistral": Provider(
        client=_OPENAI,
        options=_APIS,
        base_url="https://api.mistral.ai/v1",
        keys=("MISTRAL_API_KEY",),
        example="mistral:mistral-small-latest",
    ),
    "deepseek": Provider(
        client=_OPENAI,
        options=_APIS,
        base_url="https://api.deepseek.com",
        keys=("DEEPSEEK_API_KEY",),
        example="deepseek:deepseek-chat",
    ),
    "xai": Provider(
        client=_OPENAI,
        options=_APIS,
        base_url="https://api.x.ai/v1",
        keys=("XAI_API_KEY",),
        example="xai:grok-4",
    ),
    "together": Provider(
        client=_OPENAI,
        options=_APIS,
        base_url="https://api.together.xyz/v1",
        keys=("TOGETHER_API_KEY",),
        example="together:meta-llama/Llama-3.3-70B-Instruct-Turbo",
    ),
    "vllm": Provider(
        client=_OPENAI,
        options=_APIS,
        base_url="http://localhost:8000/v1",
        keys=("VLLM_API_KEY",),
        needs_key=False,
        example="vllm:Qwen/Qwen3-8B",
    ),
    "llamacpp": Provider(
        client=_OPENAI,
        options=_APIS,
        base_url="http://localhost:8080/v1",
        keys=("LLAMA_API_KEY",),
        needs_key=False,
        example="llamacpp:default",
    ),
}
"""Ultra's own providers, by the name that stands before the colon."""
