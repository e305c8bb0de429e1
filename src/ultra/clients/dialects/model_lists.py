"""The lists of models that providers have, as values: one page of each is read here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from msgspec import Struct

from ultra.clients.catalog.model_info import Facts, ModelInfo
from ultra.clients.dialects.tolerant import TolerantDecoder
from ultra.clients.dialects.usage import Count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ultra.clients.wire.response_head import ResponseHead

__all__ = [
    "PAGE_SIZE",
    "ModelPage",
    "OfferedModel",
    "read_anthropic_models",
    "read_gemini_models",
    "read_ollama_models",
    "read_openai_models",
]

PAGE_SIZE: Final = 1_000
"""Models of one page: the most that Anthropic and Google give at once."""

_NO_LIST: Final = "it is no list of models"


class OfferedModel(Struct, frozen=True, kw_only=True):
    """A model that a provider offers.

    Attributes:
        name: as `connect` takes it, such as ``openai:gpt-4o``.
        info: what the catalog knows of it, with the provider's own numbers in their place.
    """

    name: str
    info: ModelInfo


class ModelPage(Struct, frozen=True, kw_only=True):
    """One page of a list: each model's name, and what the provider tells of it.

    Attributes:
        models: in the provider's order.
        after: what to ask for to get the next page; None: this is the last.
    """

    models: tuple[tuple[str, Facts], ...]
    after: str | None = None


class _Item(Struct):
    """One model in a list, in the words of any provider."""

    id: str | None = None
    name: str | None = None
    model: str | None = None
    context_length: Count = None  # OpenRouter, Together
    context_window: Count = None  # Groq
    max_context_length: Count = None  # Mistral
    max_model_len: Count = None  # vLLM
    max_input_tokens: Count = None  # Anthropic
    max_tokens: Count = None  # Anthropic
    max_completion_tokens: Count = None  # Groq
    inputTokenLimit: Count = None  # noqa: N815 - Google's
    outputTokenLimit: Count = None  # noqa: N815 - Google's
    supportedGenerationMethods: list[str] | None = None  # noqa: N815 - Google's

    def facts(self) -> Facts:
        """Return what the provider tells of the model; a number of 0 tells nothing."""
        windows = (
            *(self.context_length, self.context_window, self.max_context_length, self.max_model_len),
            *(self.inputTokenLimit, self.max_input_tokens),
        )
        limits = (self.outputTokenLimit, self.max_completion_tokens, self.max_tokens)
        return Facts(context_window=_first(windows), output_limit=_first(limits))


class _Data(Struct):
    essential: ClassVar = "data"

    data: list[_Item] | None = None
    has_more: bool = False
    last_id: str | None = None


class _Models(Struct):
    essential: ClassVar = "models"

    models: list[_Item] | None = None
    nextPageToken: str | None = None  # noqa: N815 - Google's


_read_data: Final = TolerantDecoder(_Data)
_read_items: Final = TolerantDecoder(list[_Item])
_read_models: Final = TolerantDecoder(_Models)


def read_openai_models(content: bytes, head: ResponseHead) -> ModelPage:
    """Return the models of ``GET {base_url}/models``: an object with ``data``, or Together's bare list.

    Raises `ModelError`.
    """
    if content.lstrip().startswith(b"["):
        return ModelPage(models=_named(head.read(_read_items, content), "id"))
    return ModelPage(models=_named(_list_in(head, _read_data, content, "data"), "id"))


def read_anthropic_models(content: bytes, head: ResponseHead) -> ModelPage:
    """Return one page of ``GET {base_url}/v1/models``. Raises `ModelError`."""
    items = _list_in(head, _read_data, content, "data")
    page = head.read(_read_data, content)
    last = page.last_id or (items[-1].id if items else None)
    return ModelPage(models=_named(items, "id"), after=last if page.has_more else None)


def read_gemini_models(content: bytes, head: ResponseHead) -> ModelPage:
    """Return those of one page of ``GET {base_url}/v1beta/models`` that write text. Raises `ModelError`."""
    items = _list_in(head, _read_models, content, "models")
    methods = ((item, item.supportedGenerationMethods) for item in items)
    writers = [item for item, known in methods if known is None or "generateContent" in known]
    models = tuple((name.removeprefix("models/"), facts) for name, facts in _named(writers, "name"))
    return ModelPage(models=models, after=head.read(_read_models, content).nextPageToken or None)


def read_ollama_models(content: bytes, head: ResponseHead) -> ModelPage:
    """Return the models of ``GET {base_url}/api/tags``: those that were pulled. Raises `ModelError`."""
    return ModelPage(models=_named(_list_in(head, _read_models, content, "models"), "name", "model"))


def _list_in(head: ResponseHead, decode: Callable[[bytes], Any], content: bytes, name: str) -> list[_Item]:
    """Return the list that `content` holds under `name`. Raises `ModelError`."""
    items: list[_Item] | None = getattr(head.read(decode, content), name)
    if items is None:
        # Google leaves out an empty list.
        if content.strip() == b"{}":
            return []
        raise head.failure_inside(content) if head.reports_failure(content) else head.malformed(_NO_LIST)
    return items


def _named(items: Iterable[_Item], *names: str) -> tuple[tuple[str, Facts], ...]:
    """Return the models that have a name; without one, a model cannot be asked."""
    found = ((next((n for each in names if (n := getattr(item, each))), ""), item) for item in items)
    return tuple((name, item.facts()) for name, item in found if name.strip())


def _first(numbers: Iterable[int | None]) -> int | None:
    return next((number for number in numbers if number), None)
