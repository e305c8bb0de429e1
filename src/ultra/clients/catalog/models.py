"""Looking up what is known of a model."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, structs

from ultra.clients.catalog.endpoint_quirks import known_quirks
from ultra.clients.catalog.model_info import Facts, ModelInfo
from ultra.clients.catalog.model_names import families, key_of, maker_of, snapshots, tags
from ultra.clients.catalog.providers import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["known_info", "known_models", "model_info"]

_OLLAMA_WINDOW: Final = 32_768
"""Tokens. Ollama gives each call the window that the call asks for; so far Ultra goes without being told."""

_OWN_SERVERS: Final = frozenset({"vllm", "llamacpp"})
"""What a model can do there, and how far its window goes, is a setting of the server."""


class _Row(Facts, frozen=True, kw_only=True, forbid_unknown_fields=True):
    gathered: str = ""


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    """The content of ``models.json``.

    Rows by provider and name. `families` are by the beginnings of names, for models that have no row: their
    numbers are rather too small than too large, and they have no price.
    """

    gathered: str
    sources: tuple[str, ...]
    models: dict[str, dict[str, _Row]]
    families: dict[str, dict[str, _Row]]
    aliases: dict[str, dict[str, str]]


class _Section:
    """The rows of one provider, by the keys of their names."""

    def __init__(self, provider: str, file: _File) -> None:
        self._provider = provider
        self._gathered = file.gathered
        self._rows = {key_of(name): (name, row) for name, row in file.models.get(provider, {}).items()}
        self._families = {key_of(name): (name, row) for name, row in file.families.get(provider, {}).items()}
        for alias, name in file.aliases.get(provider, {}).items():
            self._rows[key_of(alias)] = self._rows[key_of(name)]

    def find(self, keys: Iterable[str]) -> ModelInfo | None:
        """Return the row of the first of `keys` that has one; one of the newest version will do, too."""
        for key in keys:
            found = self._rows.get(key) or self._rows.get(f"{key}-latest")
            if found is not None:
                return self._info(*found)
        return None

    def family(self, key: str) -> ModelInfo | None:
        """Return what is known of the family of the model called `key`."""
        found = next((self._families[name] for name in families(key) if name in self._families), None)
        return found and self._info(*found)

    def _info(self, name: str, row: _Row) -> ModelInfo:
        day = row.gathered or self._gathered
        return ModelInfo(name=f"{self._provider}:{name}", gathered=day, **row.told())


@lru_cache(maxsize=1)
def _file() -> _File:
    return msgspec.json.decode(Path(__file__).with_name("models.json").read_bytes(), type=_File)


@cache
def _section(provider: str) -> _Section:
    return _Section(provider, _file())


def _knows(provider: str) -> bool:
    return provider in _file().models


def known_models() -> tuple[str, ...]:
    """Return the models that the catalog has rows of, as ``provider:model``."""
    return tuple(f"{provider}:{name}" for provider, models in _file().models.items() for name in models)


@lru_cache(maxsize=1024)
def model_info(provider: str, model: str) -> ModelInfo:
    """Return what is known of this model; of one that nobody knows, nothing but None.

    A model is found by its name, without the date of a version, without a gateway's prefix, and by its
    family. Without its own row at `provider` it has no price, since a gateway has its own.
    """
    if provider in _OWN_SERVERS:
        return ModelInfo()
    if provider == "ollama":
        return _ollama(model)
    name = key_of(model)
    if _knows(provider) and (found := _section(provider).find(snapshots(name))) is not None:
        return found
    elsewhere = _elsewhere(provider, model)
    for section, key in elsewhere:
        if (found := _section(section).find(snapshots(key))) is not None:
            return structs.replace(found, price=None)
    for section, key in ((provider, name), *elsewhere):
        if _knows(section) and (found := _section(section).family(key)) is not None:
            return found
    return ModelInfo()


def known_info(provider: str, base_url: str, model: str) -> ModelInfo:
    """Return what is known of this model at this address, with the quirks of the endpoint.

    It has a price only at the provider's own address: who serves it elsewhere has other prices, or none.
    """
    known = model_info(provider, model)
    row = PROVIDERS.get(provider)
    own = row is not None and row.base_url is not None and _host(row.base_url) == _host(base_url)
    return structs.replace(
        known, price=known.price if own else None, quirks=known_quirks(provider, base_url, model)
    )


def _host(url: str) -> str | None:
    return urlsplit(url).hostname


def _ollama(model: str) -> ModelInfo:
    found = _section("ollama").find(tags(model)) or ModelInfo(output="schema")
    window = min(found.context_window or _OLLAMA_WINDOW, _OLLAMA_WINDOW)
    return structs.replace(found, context_window=window)


def _elsewhere(provider: str, model: str) -> list[tuple[str, str]]:
    """Return the sections in which a model stands that has no row at `provider`, each with its key there."""
    if (made := maker_of(model)) is not None:
        return [(made[0], key_of(made[1]))]
    if provider == "azure":
        return [("openai", key_of(model))]
    # Any OpenAI-compatible endpoint can be given as base_url of openai.
    others = ("gemini", "mistral", "deepseek", "xai", "qwen", "moonshotai", "zai", "cohere", "meta-llama")
    return [(section, key_of(model)) for section in others] if provider == "openai" else []
