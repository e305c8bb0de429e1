"""The options of calls of Ultra's own clients, in the same words for every provider."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final, TypedDict

import msgspec
from msgspec import Struct, structs

from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.messages.request import SamplingOptions

__all__ = ["CallArguments", "CallOptions", "checked_key"]

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110, section 5.6.2


class CallOptions(Struct, frozen=True, kw_only=True):
    """The options of a call, or the defaults of a client for all its calls.

    None leaves the choice to the provider.

    Attributes:
        system: the system prompt of calls that bring none.
        max_tokens: the most tokens of an answer, reasoning included where the provider counts it so.
        stop: texts at which the answer ends.
        reasoning_effort: in the provider's own words.
        show_reasoning: whether the provider is asked to send what the model thinks, or a summary of it; see
            `SamplingOptions`. A model that is known not to reason, or whose `reasoning_effort` is ``"none"``,
            is not asked.
        context_window: the most tokens of prompt and answer together. Prompts are made to fit into it, and
            Ollama is asked for it. By default what the catalog knows of the model.
        extra_body: is merged into the top level of the JSON that is sent, and wins over all else in it.
        extra_headers: is merged into the headers that are sent, and wins over all else there.

    Raises:
        BadCall: a value is not allowed.
    """

    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    stop: str | tuple[str, ...] | None = None
    seed: int | None = None
    top_p: float | None = None
    reasoning_effort: str | None = None
    show_reasoning: bool | None = None
    context_window: int | None = None
    extra_body: dict[str, Any] | None = None
    extra_headers: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"CallOptions({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the options that are set, of what goes beside them the names alone: a key may be in it."""
        given = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return [
            (name, list(value) if name.startswith("extra_") else value)
            for name, value in given
            if value is not None
        ]

    @property
    def stop_sequences(self) -> list[str] | None:
        """`stop` as the list that every protocol accepts."""
        if self.stop is None:
            return None
        return [self.stop] if isinstance(self.stop, str) else list(self.stop)

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise BadCall(f"{name} must be a finite number, not {value!r}")
        for name in ("max_tokens", "context_window"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadCall(f"{name} must be at least 1, not {value!r}")
        for name, text in (self.extra_headers or {}).items():
            # httpx would refuse them too, and show the value, which may be a key.
            if not _HEADER_NAME.fullmatch(name):
                raise BadCall(f"the name {name!r} in extra_headers is not that of a header")
            if not (text.isascii() and text.replace("\t", " ").isprintable()):
                raise BadCall(
                    f"the value of {name!r} in extra_headers has characters that no header may have"
                )

    def override(self, **given: Any) -> CallOptions:  # noqa: ANN401 - checked below
        """Return these options with those `given` that are not None in their place.

        `extra_body` and `extra_headers` are merged key by key.

        Raises:
            BadCall: there is no such option, or its value is not allowed.
        """
        changes = {name: value for name, value in given.items() if value is not None}
        unknown = [name for name in changes if name not in self.__struct_fields__]
        if unknown:
            choices = ", ".join(self.__struct_fields__)
            raise BadCall(f"unknown option {unknown[0]!r}; the options of a call are: {choices}")
        for name in ("extra_body", "extra_headers"):
            if name in changes:
                changes[name] = {**(getattr(self, name) or {}), **changes[name]}
        merged = structs.asdict(self) | changes
        try:
            return msgspec.convert(merged, CallOptions)
        except msgspec.ValidationError as error:
            raise BadCall(f"an option of the call is not allowed: {error}") from None

    def with_sampling(self, sampling: SamplingOptions) -> CallOptions:
        """Return these options with those that a request sets in their place.

        `SamplingOptions.extra` may hold ``extra_body`` and ``extra_headers``.

        Raises:
            BadCall: there is no such option, or its value is not allowed.
        """
        given = sampling.given()
        if "system" in given:
            raise BadCall("system is not an option of a request; give it as a message of the request")
        return self.override(**given) if given else self


class CallArguments(TypedDict, total=False):
    """The options of one call as keyword arguments; see `CallOptions`. None: the client's default."""

    system: str | None
    temperature: float | None
    max_tokens: int | None
    stop: str | Sequence[str] | None
    seed: int | None
    top_p: float | None
    reasoning_effort: str | None
    show_reasoning: bool | None
    context_window: int | None
    extra_body: Mapping[str, Any] | None
    extra_headers: Mapping[str, str] | None


def checked_key(provider: str, api_key: str | None) -> str:
    """Return the key without the line end that files and shells add. Raises `BadCall`."""
    key = (api_key or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise BadCall(f"the API key of {provider} has characters that no key has; was it copied whole?")
    return key
