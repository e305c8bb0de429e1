"""The names under which one model goes, from the most exact to that of its family.

The same model is ``claude-sonnet-4-5-20250929`` at Anthropic, ``anthropic/claude-sonnet-4.5`` at OpenRouter,
``us.anthropic.claude-sonnet-4-5-20250929-v1:0`` at Bedrock and ``claude-sonnet-4-5@20250929`` at Vertex.
Every function takes time linear in the length of a name, which is cut.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ultra._support.lazy import lazy_pattern

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["families", "key_of", "maker_of", "snapshots", "tags"]

_LONGEST: Final = 200
"""Characters of a name that are looked at."""

_MAKERS: Final[Mapping[str, str]] = {
    "anthropic": "anthropic",
    "openai": "openai",
    "google": "gemini",
    "gemini": "gemini",
    "vertex_ai": "gemini",
    "mistralai": "mistral",
    "mistral": "mistral",
    "deepseek": "deepseek",
    "deepseek-ai": "deepseek",
    "x-ai": "xai",
    "xai": "xai",
    "qwen": "qwen",
    "alibaba": "qwen",
    "moonshotai": "moonshotai",
    "moonshot": "moonshotai",
    "z-ai": "zai",
    "zai": "zai",
    "zai-org": "zai",
    "zhipuai": "zai",
    "meta-llama": "meta-llama",
    "meta": "meta-llama",
    "cohere": "cohere",
}
"""The words that gateways put before a model's name, and the section of the catalog that each means."""

_REGION: Final = lazy_pattern(r"(?:us|us-gov|eu|apac|jp|au|global)\.")

_DATE: Final = r"\d{4}-\d\d-\d\d|\d\d-\d\d-\d{4}|\d\d-\d{4}|\d\d-\d\d|\d{3,8}"
_VERSION: Final = lazy_pattern(
    rf"-(?:latest|preview|exp|experimental|beta|stable|free|nitro|floor|online|extended|thinking"
    rf"|v\d{{1,2}}(?:-\d{{1,2}})?|{_DATE})$"
)
"""What ends the name of one version of a model, or of one way to be served by OpenRouter."""

_MOST_ENDINGS: Final = 4


def key_of(name: str) -> str:
    """Return `name` in the form in which names are compared: in lower case, with dashes alone.

    What stands before ``models/`` is left out, as in ``publishers/google/models/gemini-2.5-pro``.
    """
    name = name[:_LONGEST].strip().lower()
    return re.sub(r"[.:@_ ]", "-", name.rpartition("models/")[2])


def maker_of(name: str) -> tuple[str, str] | None:
    """Return the section of the catalog and the name behind ``maker/`` or ``maker.``; None without one."""
    name = name[:_LONGEST].strip().lower()
    rest, slash, last = name.rpartition("/")
    maker = rest.rpartition("/")[2]
    if slash and maker in _MAKERS:
        return _MAKERS[maker], last
    bare = last[match.end() :] if (match := _REGION().match(last)) else last
    maker, dot, model = bare.partition(".")
    return (_MAKERS[maker], model) if dot and maker in _MAKERS else None


def snapshots(key: str) -> Iterator[str]:
    """Yield `key`, and the same without one after the other of the endings that name a version of it."""
    yield key
    for _ in range(_MOST_ENDINGS):
        found = _VERSION().search(key)
        if found is None or not found.start():
            return
        key = key[: found.start()]
        yield key


def tags(name: str) -> Iterator[str]:
    """Yield the keys of a name of Ollama's: with its tag, with the size in it, and without the tag.

    ``qwen2.5:7b-instruct-q4_K_M`` is ``qwen2.5:7b`` is ``qwen2.5``.
    """
    model, _, tag = name[:_LONGEST].strip().lower().removeprefix("library/").partition(":")
    sizes = (f"{model}:{tag}", f"{model}:{tag.partition('-')[0]}") if tag else ()
    yield from dict.fromkeys(map(key_of, (*sizes, model)))


def families(key: str) -> Iterator[str]:
    """Yield the beginnings of `key` that end before a dash, the longest first."""
    yield key
    end = len(key)
    while (end := key.rfind("-", 0, end)) > 0:
        yield key[:end]
