"""What the history keeps of values: no keys."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from ultra.clients.catalog import PROVIDERS
from ultra.messages.events import Event
from ultra.stores.journal_contract import RunRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ultra.config.configuration import Configuration
    from ultra.messages.runs import RunSpec

__all__ = ["SecretFilter", "known_secrets"]

T = TypeVar("T")

_SHORTEST: Final = 8
"""Characters; shorter values are no keys, and occur in ordinary words."""

_SHAPES: Final = re.compile(r"\b(?:(?:sk|xai|gsk)-[\w-]{16,}|AIza[\w-]{20,})")
"""Keys by their own shape."""

_NAMES: Final = re.compile(r"auth|key|token(?!i[sz])|secret|passw|cookie|credential", re.IGNORECASE)
_STARS: Final = "***"


def known_secrets(configuration: Configuration | None = None) -> frozenset[str]:
    """Return the keys of providers in the environment, and what a configuration has of keys.

    In options of a client and in the environment of its process, these are texts under names such as `token`.
    """
    variables = {name for provider in PROVIDERS.values() for name in (*provider.keys, *provider.tokens)}
    found = [os.environ.get(name, "") for name in variables]
    if configuration is not None:
        found += [os.environ.get(name, "") for name in configuration.variables]
        for model in configuration.models.values():
            for each in model.deployments:
                found.append(each.api_key or "")
                found += _named_as_secrets(each.options)
                if each.placement is not None:
                    found += _named_as_secrets(each.placement.runtime_env)
    return frozenset(secret for secret in found if len(secret) >= _SHORTEST)


def _named_as_secrets(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts under names that are those of keys, however deep."""
    waiting: list[Any] = [given]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            yield from (
                text for name, text in value.items() if isinstance(text, str) and _NAMES.search(str(name))
            )
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value


class SecretFilter:
    """Replaces secrets in values by three stars: these, and what has the shape of a key."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = "|".join(re.escape(secret) for secret in sorted(secrets, key=len, reverse=True))
        self._pattern = re.compile(f"{known}|{_SHAPES.pattern}" if known else _SHAPES.pattern)

    def __call__(self, value: T) -> T:
        """Return the value without secrets; it is the same object where it has none."""
        if isinstance(value, RunRecord):
            value = replace(value, spec=_without_keys(value.spec))
        plain = msgspec.to_builtins(value, builtin_types=(bytes, datetime))
        cleaned = self._cleaned(plain)
        if cleaned is plain:
            return value
        kind: Any = Event if isinstance(value, Event) else type(value)
        converted: T = msgspec.convert(cleaned, kind, builtin_types=(bytes, datetime))
        return converted

    def _cleaned(self, value: Any) -> Any:  # noqa: ANN401 - any plain value
        """Return `value` without secrets, or itself."""
        if isinstance(value, str):
            return self._pattern.sub(_STARS, value) if self._pattern.search(value) else value
        if isinstance(value, dict):
            items = {key: self._cleaned(item) for key, item in value.items()}
            return value if all(items[key] is item for key, item in value.items()) else items
        if isinstance(value, list | tuple):
            each = [self._cleaned(item) for item in value]
            return value if all(one is other for one, other in zip(each, value, strict=True)) else each
        return value


def _without_keys(spec: RunSpec) -> RunSpec:
    """Return a spec whose options have no texts under names that are those of keys."""
    sampling = _shown(spec.request.options)
    return replace(spec, request=replace(spec.request, options=sampling), options=_shown(spec.options))


def _shown(options: T) -> T:
    plain = msgspec.to_builtins(options)
    hidden = _hidden(plain)
    return options if hidden == plain else msgspec.convert(hidden, type(options))


def _hidden(value: Any) -> Any:  # noqa: ANN401 - any plain value
    if isinstance(value, dict):
        return {
            key: _STARS if isinstance(item, str) and _NAMES.search(key) else _hidden(item)
            for key, item in value.items()
        }
    return [_hidden(item) for item in value] if isinstance(value, list) else value
