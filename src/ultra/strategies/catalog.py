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

from ultra.errors import BadCall
from ultra.strategies.base import Strategy, StrategySpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from importlib.metadata import EntryPoint

__all__ = ["ENTRY_POINTS", "make_strategy", "spec_of", "strategy_names"]

ENTRY_POINTS: Final = "ultra.strategies"

_BUILT_IN: Final = {
    "synthesize": "ultra.strategies.synthesize:Synthesize",
    "vote": "ultra.strategies.vote:Vote",
    "best_of": "ultra.strategies.best_of:BestOf",
}


def strategy_names() -> tuple[str, ...]:
    """Return the names of all strategies, Ultra's own first."""
    others = sorted({entry.name for entry in _entry_points()} - _BUILT_IN.keys())
    return (*_BUILT_IN, *others)


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
    if isinstance(given, type) or not callable(getattr(given, "run", None)):
        raise BadCall(
            f"strategy is {given!r}; give one of {', '.join(strategy_names())}, or an object with "
            "'async def run(self, context)'"
        )
    return cast("Strategy", given)


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


_NAMES: Final = {home: name for name, home in _BUILT_IN.items()}


def _named(name: str, options: dict[str, Any]) -> Strategy:
    kind = _kind(name)
    if isinstance(kind, type) and issubclass(kind, Struct):
        unknown = [option for option in options if option not in kind.__struct_fields__]
        if unknown:
            choices = ", ".join(kind.__struct_fields__) or "none"
            raise BadCall(f"strategy {name!r} has no option {unknown[0]!r}; it has: {choices}")
        try:
            return cast("Strategy", msgspec.convert(options, kind))
        except msgspec.ValidationError as error:
            raise BadCall(f"an option of strategy {name!r} is not allowed: {error}") from None
    try:
        return make_strategy(kind(**options))
    except TypeError as error:
        raise BadCall(f"strategy {name!r} cannot be made with these options: {error}") from error


def _kind(name: str) -> Callable[..., object]:
    home = _BUILT_IN.get(name)
    if home is not None:
        module, _, attribute = home.partition(":")
        return cast("Callable[..., object]", getattr(import_module(module), attribute))
    for entry in _entry_points():
        if entry.name != name:
            continue
        try:
            return cast("Callable[..., object]", entry.load())
        except Exception as error:
            package = entry.dist.name if entry.dist is not None else "a package"
            raise BadCall(
                f"strategy {name!r} of {package} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
    raise BadCall(f"unknown strategy {name!r}; there are: {', '.join(strategy_names())}")


def _entry_points() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - it takes longer than the rest of Ultra

    return entry_points(group=ENTRY_POINTS)
