"""What a configuration wants that was found and not named: it may be a part of somebody else's project.

Such a file may choose models of providers at their usual addresses, weigh them, and set times, limits and
prices. All else needs trust: ``${VAR}``, since it may be any secret, and each way by which a secret, or what
the user asks, could reach others (endpoints, stores, texts and headers that are sent), and code that would be
imported. What is allowed is listed, so a setting that is added later needs trust until it is listed here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from ultra.config.ensembles import EnsembleConfig
from ultra.config.history import HistoryConfig
from ultra.config.journal import JournalConfig
from ultra.config.sections import CacheConfig, DeploymentConfig, ModelConfig, RunConfig
from ultra.config.serving import ServeConfig
from ultra.config.shared import SharedConfig
from ultra.config.telemetry import TelemetryConfig
from ultra.strategies.catalog import names_a_class

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from msgspec import Struct

__all__ = ["wishes"]

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

_POLICIES: Final = ("retry", "timeouts", "limits", "breaker")

# For each section, what needs no trust, of what there is. Options are those of clients and of all strategies:
# those of a strategy choose among the file's own models, and by what an answer stands.
_RUN: Final = ("strategy", "stages", "quorum", "grace", "timeout", "judge", "max_cost", "ensemble")
_MODEL: Final = ("model", "weight", "options", "price", "hedge_after", *_POLICIES)
_DEPLOYMENT: Final = ("model", "options")
_ENSEMBLE: Final = (
    *("models", "strategy", "options", "stages", "quorum", "grace", "timeout", "max_cost", "description"),
)
_STRATEGY: Final = (
    *("name", "stages", "analysts", "keep_unanimous", "weights", "rule", "judge", "at_once", "model", "top"),
    *("rankers", "first", "order", "threshold", "quality", "end", "tolerance", "key", "writer", "panel"),
    *("on_cut", "answer_tokens", "chooser", "most", "strategy", "options"),
)
_OPTIONS: Final = (
    *("temperature", "max_tokens", "seed", "top_p", "reasoning_effort", "show_reasoning"),
    *("context_window", "api"),
)
_CACHE: Final = ("enabled", "store")

_NAMES: Final = {
    "api_key": "a key of its own",
    "base_url": "an endpoint of its own",
    "system": "a system prompt of its own",
    "fetch_urls": "fetching what stands at addresses",
    "extra_body": "fields of its own in what is sent",
    "extra_headers": "headers of its own in what is sent",
    "samples": "several answers of each model",
    "per_model": "options and roles of single models",
    "rounds": "several rounds of answers",
    "about": "texts of its own in what is sent",
    "choose": "a function that chooses the models",
    "test": "a function that tests answers",
    "verify": "a function that tests answers",
}

Place = tuple[str, ...]


def wishes(table: Mapping[str, Any]) -> list[tuple[Place, str]]:
    """Return what the file with this `table` may have only if it is trusted: places, and what is there.

    Keys that no configuration has are left out: reading the file as a configuration refuses them.
    """
    found = dict.fromkeys([*_variables((), table), *_settings(table)])
    return list(found)


def _variables(where: Place, value: object) -> Iterator[tuple[Place, str]]:
    """Yield each environment variable that the file names."""
    waiting: list[tuple[Place, object]] = [(where, value)]  # and no recursion, however deep it is
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [((*where, str(key)), item) for key, item in reversed(value.items())]
        elif isinstance(value, list):
            waiting += [(where, item) for item in reversed(value)]
        elif isinstance(value, str):
            yield from ((where, f"the environment variable {name}") for name in _VARIABLE.findall(value))


def _settings(table: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    # A template (see `ultra.cli.templates`) has these at its top, and a configuration has not.
    yield from (((name,), f"a {name} of its own") for name in ("prompt", "system") if name in table)
    run, cache = _section(table.get("run")), _section(table.get("cache"))
    yield from _others(("run",), run, _RUN, RunConfig)
    strategy = run.get("strategy")
    yield from _of_strategy(("run", "strategy"), _section(strategy))
    yield from _code(("run", "strategy"), strategy.get("name") if isinstance(strategy, dict) else strategy)
    yield from _others(("cache",), cache, _CACHE, CacheConfig)
    if cache.get("store", "memory") != "memory":
        yield ("cache", "store"), "a store of answers, which others may read or have filled"
    for ensemble, given in _section(table.get("ensembles")).items():
        yield from _of_ensemble(("ensembles", str(ensemble)), _section(given))
    yield from _others(("journal",), _section(table.get("journal")), (), JournalConfig)
    yield from _others(("history",), _section(table.get("history")), (), HistoryConfig)
    yield from _others(("shared",), _section(table.get("shared")), (), SharedConfig)
    yield from _others(("serve",), _section(table.get("serve")), (), ServeConfig)
    yield from _others(("telemetry",), _section(table.get("telemetry")), (), TelemetryConfig)
    for model, given in _section(table.get("models")).items():
        yield from _of_model(("models", str(model)), _section(given))


def _of_ensemble(where: Place, ensemble: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    yield from _others(where, ensemble, _ENSEMBLE, EnsembleConfig)
    yield from _of_strategy((*where, "options"), _section(ensemble.get("options")))
    yield from _code((*where, "strategy"), ensemble.get("strategy"))


def _of_strategy(where: Place, options: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """Yield what needs trust of the options of a strategy, and of those of one that it asks by."""
    while options:
        yield from _others(where, options, _STRATEGY)
        yield from _code((*where, "strategy"), options.get("strategy"))
        where, options = (*where, "options"), _section(options.get("options"))


def _code(where: Place, name: object) -> Iterator[tuple[Place, str]]:
    if isinstance(name, str) and names_a_class(name):
        yield where, f"code, {name!r}"


def _of_model(where: Place, model: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    yield from _others(where, model, _MODEL, ModelConfig)
    yield from _others((*where, "options"), _section(model.get("options")), _OPTIONS)
    deployments = model.get("model")
    for each in deployments if isinstance(deployments, list) else ():
        yield from _others((*where, "model"), _section(each), _DEPLOYMENT, DeploymentConfig)
        yield from _others((*where, "model"), _section(_section(each).get("options")), _OPTIONS)


def _others(
    where: Place, section: Mapping[str, Any], allowed: tuple[str, ...], kind: type[Struct] | None = None
) -> Iterator[tuple[Place, str]]:
    for name in section:
        if name not in allowed and (kind is None or name in kind.__struct_fields__):
            yield (*where, name), _NAMES.get(name, f"the setting {name}")


def _section(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
