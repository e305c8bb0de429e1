"""Strategies by name: those of Ultra, and those that other packages bring by entry point.

A package names its strategies in the group ``ultra.strategies``::

    [project.entry-points."ultra.strategies"]
    longest = "my_package:Longest"

where ``Longest`` is a class, its options the keyword arguments of its constructor.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from msgspec import Struct, structs

from ultra._support.checks import did_you_mean, shown
from ultra._support.named_code import load_named
from ultra.errors import BadCall
from ultra.strategies.base import Strategy, StrategySpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from importlib.metadata import EntryPoint

__all__ = [
    "ENTRY_POINTS",
    "load_strategy",
    "make_strategy",
    "names_a_class",
    "spec_of",
    "strategy_names",
    "strategy_options",
    "strategy_packages",
]

ENTRY_POINTS: Final = "ultra.strategies"

_BUILT_IN: Final = {
    "synthesize": "ultra.strategies.synthesize:Synthesize",
    "vote": "ultra.strategies.vote:Vote",
    "self_consistency": "ultra.strategies.self_consistency:SelfConsistency",
    "best_of": "ultra.strategies.best_of:BestOf",
    "rank": "ultra.strategies.rank:Rank",
    "cascade": "ultra.strategies.cascade:Cascade",
    "layers": "ultra.strategies.layers:Layers",
    "debate": "ultra.strategies.debate:Debate",
    "route": "ultra.strategies.route:Route",
    "fields": "ultra.strategies.fields:Fields",
}

_METHOD: Final = "'async def run(self, context)'"

_UNLISTED: Final = {"one_model": "ultra.strategies.one_model:OneModel"}
"""A name for what is none to choose: a run of one model has it, so that it can be submitted."""

_NAMES: Final = {home: name for name, home in (_BUILT_IN | _UNLISTED).items()}
"""Names by ``module:Class``; those of entry points join when they are first used."""


def strategy_names() -> tuple[str, ...]:
    """Return the names of all strategies, Ultra's own first."""
    others = sorted({entry.name for entry in _entry_points()} - _BUILT_IN.keys())
    return (*_BUILT_IN, *others)


def strategy_options(name: str) -> tuple[str, ...]:
    """Return the names of the options of one of Ultra's own strategies. Raises `BadCall`."""
    home = _BUILT_IN.get(name)
    if home is None:
        hint = did_you_mean(name, _BUILT_IN)
        raise BadCall(f"unknown strategy {shown(name)}; there are: {', '.join(_BUILT_IN)}{hint}")
    module, _, attribute = home.partition(":")
    return tuple(getattr(import_module(module), attribute).__struct_fields__)


def strategy_packages() -> dict[str, tuple[str, ...]]:
    """Return the installed packages that bring a strategy, by the name of the strategy."""
    found: dict[str, dict[str, None]] = {}
    for entry in sorted(_entry_points(), key=lambda entry: (entry.name, entry.value)):
        found.setdefault(entry.name, {})[f"{_package(entry)} ({entry.value})"] = None
    return {name: tuple(packages) for name, packages in found.items()}


def make_strategy(given: object, options: Mapping[str, Any] | None = None) -> Strategy:
    """Return the strategy that is `given`: its name, a `StrategySpec`, or an object that is one.

    `options` go with a name.

    Raises:
        BadCall: there is none of that name, an option is not allowed, or it is no strategy.
    """
    if isinstance(given, StrategySpec):
        return _named(given.name, given.options)
    if isinstance(given, str):
        return _named(given, dict(options or {}))
    if options:
        raise BadCall("options go with the name of a strategy; an object has its own")
    if not _is_strategy(given):
        raise BadCall(
            f"strategy is {given!r}; give one of {', '.join(strategy_names())}, or an object with {_METHOD}"
        )
    return cast("Strategy", given)


def names_a_class(name: str) -> bool:
    """Return whether `name` is a ``package.module:Class``, and no name of the catalog."""
    return ":" in name


def load_strategy(name: str, options: Mapping[str, Any] | None = None) -> Strategy:
    """Return the strategy of a name, or of a class as ``package.module:Class``.

    That imports the module, so `name` must come from the person whose program this is, and never from a
    request or from a file that nobody named.

    Raises:
        BadCall: there is none of that name, it cannot be imported, or an option is not allowed.
    """
    if not names_a_class(name):
        return _named(name, dict(options or {}), more=", or a class of your own as package.module:Class")
    found = load_named("strategy", name)
    if not callable(getattr(found, "run", None)):
        raise BadCall(f"strategy {name!r} is {found!r}; it must be a class with {_METHOD}")
    return (
        _made(name, found, dict(options or {})) if isinstance(found, type) else make_strategy(found, options)
    )


def spec_of(strategy: Strategy) -> StrategySpec:
    """Return the strategy as a value; where options of it are none, such as functions, its name alone."""
    kind = type(strategy)
    name = _NAMES.get(f"{kind.__module__}:{kind.__qualname__}", kind.__qualname__)
    fields = structs.asdict(strategy) if isinstance(strategy, Struct) else {}
    given = {option: value for option, value in fields.items() if value is not None}
    try:
        # As they arrive in another process: to_builtins would leave tuples, which arrive as lists.
        return StrategySpec(name, msgspec.msgpack.decode(msgspec.msgpack.encode(given)))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return StrategySpec(name)


def _named(name: str, options: dict[str, Any], more: str = "") -> Strategy:
    home = _BUILT_IN.get(name) or _UNLISTED.get(name)
    if home is not None:
        module, _, attribute = home.partition(":")
        return _made(name, getattr(import_module(module), attribute), options)
    entry = _only(name, list(_entry_points(name)))
    if entry is not None:
        kind = _loaded(entry)
        _NAMES[f"{entry.module}:{entry.attr}"] = name
        return _made(name, kind, options)
    hint = did_you_mean(name, strategy_names())
    raise BadCall(f"unknown strategy {shown(name)}; there are: {', '.join(strategy_names())}{more}{hint}")


def _made(name: str, kind: Callable[..., object], options: dict[str, Any]) -> Strategy:
    """Call the class, or the function, of a strategy. It may be somebody else's code."""
    of_struct = isinstance(kind, type) and issubclass(kind, Struct)
    fields: tuple[str, ...] = getattr(kind, "__struct_fields__", ())
    unknown = [option for option in options if option not in fields] if of_struct else []
    if unknown:
        choices = ", ".join(fields) or "none"
        raise BadCall(f"strategy {name!r} has no option {unknown[0]!r}; it has: {choices}")
    try:
        made = msgspec.convert(options, kind) if of_struct else kind(**options)
    except msgspec.ValidationError as error:
        raise BadCall(f"an option of strategy {name!r} is not allowed: {error}") from None
    except Exception as error:
        raise BadCall(
            f"strategy {name!r} cannot be made with these options: {type(error).__name__}: {error}"
        ) from error
    if not _is_strategy(made):
        raise BadCall(f"strategy {name!r} is {made!r}; it must be an object with {_METHOD}")
    return cast("Strategy", made)


def _is_strategy(given: object) -> bool:
    return not isinstance(given, type) and callable(getattr(given, "run", None))


def _entry_points(name: str | None = None) -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - imports much that few programs need

    return entry_points(group=ENTRY_POINTS) if name is None else entry_points(group=ENTRY_POINTS, name=name)


def _only(name: str, entries: Sequence[EntryPoint]) -> EntryPoint | None:
    """Return the entry point of a name; None: there is none. Raises `BadCall` where several have it."""
    homes = {entry.value: entry for entry in entries}
    if len(homes) > 1:
        packages = ", ".join(f"{entry.value} of {_package(entry)}" for entry in homes.values())
        raise BadCall(
            f"several packages have a strategy {name!r}: {packages}; remove one of them, or give an object "
            "of the class that you mean"
        )
    return next(iter(homes.values()), None)


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "a package"


def _loaded(entry: EntryPoint) -> Callable[..., object]:
    package = _package(entry)
    try:
        kind: object = entry.load()
    except (Exception, SystemExit) as error:  # some modules are programs, and end
        raise BadCall(
            f"strategy {entry.name!r} of {package} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not callable(kind):
        raise BadCall(f"strategy {entry.name!r} of {package} is {kind!r}; it must be a class, or a function")
    return cast("Callable[..., object]", kind)
