"""Clients of the user's own in `ultra.toml`: their class, and the cluster in whose processes they are made.

[models.llama]
client = "my_models:Llama"
options = { path = "/weights/llama" }
placement = { num_gpus = 1 }

[cluster.ray]
address = "auto"
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import Struct, field

from ultra._support.checks import check_number, check_seconds, check_text
from ultra._support.named_code import load_named
from ultra.errors import BadCall, UltraError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ClusterConfig", "PlacementConfig", "RayConfig", "check_class", "made_client"]

_RAY: Final = "ultra.cluster.ray"
"""The room that places models: by its name, since it is above this one, and needs an extra."""


class RayConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Ray cluster of placed models.

    Attributes:
        address: what is connected to when the first of them starts, unless the program is connected by then:
            ``auto`` (the cluster that this machine belongs to), ``host:port``, or ``local`` (a cluster of
            this machine, which ends with the program).

    Raises:
        BadCall: a value is not allowed.
    """

    address: str = "auto"

    def __post_init__(self) -> None:
        check_text("address", self.address)
        if "://" in self.address or not self.address:
            allowed = "'auto', 'local', or host:port of the cluster's head"
            hint = "; Ray's own client (ray://) is not supported: run Ultra on a machine of the cluster"
            raise BadCall(f"address is {self.address!r}; allowed is {allowed}{hint}")


class ClusterConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The clusters that models are placed in, the section `[cluster]`. There is one kind, `ray`."""

    ray: RayConfig = RayConfig()


class PlacementConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model needs of the cluster whose process it runs in; see `ultra.cluster.ray.place`.

    Attributes:
        num_gpus, num_cpus, memory: GPUs, processors and bytes that are its own.
        resources: others, by their names in the cluster.
        scheduling_strategy: ``SPREAD``: on machines with few others.
        runtime_env: the environment of the process: variables, packages.
        start_timeout: how long it may take until the client is made [s].

    Raises:
        BadCall: a value is not allowed.
    """

    num_gpus: float | None = None
    num_cpus: float | None = None
    memory: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    scheduling_strategy: Literal["DEFAULT", "SPREAD"] | None = None
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    start_timeout: float = 300.0

    def __post_init__(self) -> None:
        for name in ("num_gpus", "num_cpus", "memory"):
            check_number(name, getattr(self, name), optional=True)
        for name, amount in self.resources.items():
            check_number(f"resources of {name!r}", amount)
        check_seconds("start_timeout", self.start_timeout, positive=True)

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({told})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return what may be shown: variables of `runtime_env` may be keys."""
        shown = {name: value for name, value in self.options().items() if name != "runtime_env"}
        return list(shown.items())

    def options(self) -> dict[str, Any]:
        """Return the arguments of `place`."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        mappings = {name: dict(given[name]) for name in ("resources", "runtime_env")}
        return {name: value for name, value in {**given, **mappings}.items() if value not in (None, {})}


def check_class(name: object) -> None:
    """Raise `BadCall` unless this can name a class, as ``package.module:Class``. Nothing is imported."""
    module, colon, attribute = name.partition(":") if isinstance(name, str) else ("", "", "")
    parts = [*module.split("."), *attribute.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise BadCall(f"client is {name!r}; allowed is a class of your own, as package.module:Class")


def made_client(
    name: str,
    options: Mapping[str, Any],
    placement: PlacementConfig | None = None,
    cluster: ClusterConfig | None = None,
) -> object:
    """Return the client of this class, made with these arguments; with a placement, in the cluster's process.

    That imports its module.

    Raises:
        BadCall: the class cannot be imported, does not take the arguments, or cannot be placed so.
        MissingExtra: a model is placed, and Ray is not installed.
    """
    make = partial(_class_of(name), **options)
    try:
        inspect.signature(make.func).bind(**options)
    except TypeError as error:
        given = ", ".join(options) or "none"  # by name: their values may be secret
        raise BadCall(f"client {name!r} cannot be made with its options ({given}): {error}") from error
    except ValueError:  # a class of C, which does not tell what it takes
        pass
    if placement is not None:
        address = (cluster or ClusterConfig()).ray.address
        place: Callable[..., object] = import_module(_RAY).place
        return place(make, connect_to=address, **placement.options())
    try:
        made: object = make()
    except UltraError:
        raise
    except (Exception, SystemExit) as error:  # some modules are programs, and end
        raise BadCall(f"client {name!r} cannot be made: {type(error).__name__}: {error}") from error
    return made


def _class_of(name: str) -> type:
    found = load_named("client", name)
    if not isinstance(found, type):
        raise BadCall(f"client {name!r} is of type {type(found).__name__}; it must be a class")
    return found
