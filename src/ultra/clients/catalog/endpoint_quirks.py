"""What is known before of how endpoints differ from their dialects, as data."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from ultra.clients.quirks import Quirks

__all__ = ["known_quirks"]


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
    # Chat completions take images by address, but documents as bytes; OpenRouter takes both.
    _Known(host="api.openai.com", quirks=Quirks(no_file_urls=True)),
    _Known(provider="azure", quirks=Quirks(no_file_urls=True)),
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
    # Kimi's API takes images as bytes alone.
    _Known(host="api.moonshot.ai", quirks=Quirks(no_image_urls=True, no_file_urls=True)),
    _Known(host="api.moonshot.cn", quirks=Quirks(no_image_urls=True, no_file_urls=True)),
    _Known(provider="gemini", model=r"(models/)?gemma-[123]", quirks=Quirks(no_system=True)),
    _Known(provider="openrouter", quirks=Quirks(cache_hints=True, shows_when_asked=True)),
    _Known(host="openrouter.ai", quirks=Quirks(cache_hints=True, shows_when_asked=True)),
    _Known(host="googleapis.com", quirks=Quirks(signed_calls=True)),  # Gemini in OpenAI's form
    _Known(provider="gemini", model=r"(models/)?gemini-2\.5", quirks=Quirks(thinking_budget=True)),
    # Claude models before 4.6 do not know "adaptive" thinking; the later ones refuse a budget.
    _Known(
        provider="anthropic",
        model=r"claude-(3-|haiku-4|(sonnet|opus)-4(-[0-5])?([-@]\d{8})?$)",
        quirks=Quirks(thinking_budget=True),
    ),
)


def known_quirks(provider: str, base_url: str, model: str) -> Quirks:
    """Return what is known of this model at this address."""
    host = urlsplit(base_url).hostname or ""
    found = Quirks()
    for known in _KNOWN:
        if known.holds(provider, host, model):
            found = found.joined(known.quirks)
    return found
