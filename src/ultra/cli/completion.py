"""What the shell completes: models, ensembles, strategies, templates, providers, and the ids of runs.

Nothing here raises, asks or waits: a key that is pressed must not fail. A configuration that is not trusted
is read for its names all the same, since names have no effect.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import typer  # noqa: TC002 - typer reads the annotations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ultra.clients.dialects.base import Dialect

__all__ = [
    "SHELLS",
    "complete_ensembles",
    "complete_ensembles_and_strategies",
    "complete_identifiers",
    "complete_models",
    "complete_options",
    "complete_providers",
    "complete_runs",
    "complete_strategies",
    "complete_templates",
]

SHELLS: Final = ("bash", "zsh", "fish")

_MOST_RUNS: Final = 30
_TOLD: Final = 50
"""Characters of a question that stand beside the id of its run."""

_PATIENCE: Final = 0.2
"""Seconds for a journal that another process writes."""


def complete_identifiers(incomplete: str) -> list[str]:
    """Complete ``provider:model``, of what is known without asking anybody."""
    return _matching(incomplete, _identifiers)


def complete_models(incomplete: str) -> list[str]:
    """Complete the names of the models in the configurations; of several between commas, the last."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _matching(last, lambda: _sections("models"))]


def complete_options(context: typer.Context, incomplete: str) -> list[str]:
    """Complete ``NAME=`` of an option of how models write, and ``MODEL.NAME=`` of one model's."""
    return _matching(incomplete, lambda: _options(context.params.get("models") or (), incomplete))


def complete_ensembles(incomplete: str) -> list[str]:
    """Complete the names of the ensembles in the configurations."""
    return _matching(incomplete, lambda: _sections("ensembles"))


def complete_ensembles_and_strategies(incomplete: str) -> list[str]:
    """Complete the names of ensembles, and those of strategies."""
    return [*complete_ensembles(incomplete), *complete_strategies(incomplete)]


def complete_strategies(incomplete: str) -> list[str]:
    """Complete the names of strategies."""
    return _matching(incomplete, _strategies)


def complete_templates(incomplete: str) -> list[str]:
    """Complete the names of templates."""
    return _matching(incomplete, _templates)


def complete_providers(incomplete: str) -> list[str]:
    """Complete the names of providers that have a key."""
    return _matching(incomplete, _providers)


def complete_runs(incomplete: str) -> list[tuple[str, str]]:
    """Complete the ids of the newest runs in the user's journal; some shells show their questions, too."""
    found: list[tuple[str, str]] = []
    with suppress(Exception):
        from rich.markup import escape  # noqa: PLC0415 - only when a key is pressed

        # Typer takes what is told for rich's markup, and fails at [/this].
        runs = ((name, escape(told)) for name, told in _runs())
        found = [(name, told) for name, told in runs if name.startswith(incomplete) and _is_word(name)]
    return found


def _matching(incomplete: str, names: Callable[[], Iterable[str]]) -> list[str]:
    found: list[str] = []
    with suppress(Exception):
        # What a shell cannot take as one word is left out: names come from files that nobody named.
        found = [name for name in names() if name.startswith(incomplete) and _is_word(name)]
    return found


def _is_word(name: str) -> bool:
    may_be_more = set(" '\"`$\\;&|<>(){}[]*?!#~")  # bash looks for files that [this] matches
    return name.isprintable() and not set(name) & may_be_more and not name.startswith("-")


def _identifiers() -> Iterable[str]:
    from ultra.clients.catalog import PROVIDERS  # noqa: PLC0415 - only when a key is pressed
    from ultra.clients.catalog.models import known_models  # noqa: PLC0415 - as above

    examples = (provider.example for provider in PROVIDERS.values() if provider.example)
    yield from dict.fromkeys((*known_models(), *examples))


def _options(given: Iterable[str], incomplete: str) -> Iterable[str]:
    from ultra.cli.arguments import parse_model  # noqa: PLC0415 - only when a key is pressed
    from ultra.clients.options import CallOptions  # noqa: PLC0415 - as above
    from ultra.messages.request import SamplingOptions  # noqa: PLC0415 - as above

    names = [*CallOptions.__struct_fields__]
    names = [name for name in names if name in SamplingOptions.__struct_fields__ or name == "context_window"]
    named = [parse_model(text) for text in given]
    models: dict[str, dict[str, Any]] = {each.short_name: {"model": each.identifier} for each in named}
    models = models or dict(_sections("models"))
    for name, section in models.items():
        if incomplete.startswith(f"{name}."):
            unknown = _unknown_options(section)
            return [f"{name}.{option}=" for option in (*names, "role") if option not in unknown]
    return [*(f"{option}=" for option in names), *(f"{name}." for name in models)]


def _unknown_options(section: Mapping[str, Any]) -> frozenset[str]:
    """Return the options that do not exist in the API of the model that a section names."""
    from ultra.clients.catalog import PROVIDERS  # noqa: PLC0415 - only when a key is pressed
    from ultra.clients.catalog.endpoint_quirks import known_quirks  # noqa: PLC0415 - as above
    from ultra.clients.quirks import Quirks  # noqa: PLC0415 - as above

    name, _, model = str(section["model"]).partition(":")
    provider = PROVIDERS.get(name)
    if provider is None:
        return frozenset()
    module, _, client = provider.client.partition(":")
    dialect_type = getattr(getattr(import_module(module), client), "dialect_type", None)
    if dialect_type is None:
        return frozenset()
    address = provider.base_url or "http://127.0.0.1"
    asked = Quirks(responses=section.get("options", {}).get("api") == "responses")
    quirks = known_quirks(name, address, model).joined(asked)
    dialect: Dialect = dialect_type(model, provider=name, base_url=address)
    return dialect.adapted(quirks).unknown_options


def _strategies() -> Iterable[str]:
    from ultra.strategies.catalog import strategy_names  # noqa: PLC0415 - only when a key is pressed

    return strategy_names()


def _templates() -> Iterable[str]:
    from ultra.cli.templates import find_templates  # noqa: PLC0415 - only when a key is pressed

    return find_templates()


def _providers() -> Iterable[str]:
    from ultra.clients.catalog import PROVIDERS  # noqa: PLC0415 - only when a key is pressed

    return [name for name, provider in PROVIDERS.items() if provider.keys]


def _runs() -> Iterable[tuple[str, str]]:
    import trio  # noqa: PLC0415 - only when a key is pressed

    from ultra.cli.journal import default_journal  # noqa: PLC0415 - as above
    from ultra.cli.printable_text import one_line  # noqa: PLC0415 - as above
    from ultra.stores.journal_sqlite import SqliteJournal  # noqa: PLC0415 - as above

    path = default_journal()
    if not path.is_file():
        return []

    async def find() -> list[tuple[str, str]]:
        journal = SqliteJournal(path, busy_timeout=_PATIENCE, read_only=True)
        try:
            records = await journal.list_runs(limit=_MOST_RUNS)
        finally:
            await journal.aclose()
        return [(each.run_id, one_line(each.spec.request.prompt)[:_TOLD]) for each in records]

    return trio.run(find)


def _sections(name: str) -> Mapping[str, Any]:
    from ultra.cli.sources import find_sources  # noqa: PLC0415 - only when a key is pressed
    from ultra.config.file import ConfigurationFile  # noqa: PLC0415 - as above

    found: dict[str, Any] = {}
    for source in find_sources(None):
        with suppress(Exception):
            found |= ConfigurationFile.read(source.path).table().get(name, {})
    return found
