"""The models and ensembles of the configurations that `ultra ask` uses here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from ultra.cli.output import tell
from ultra.cli.sources import find_sources, read_sources
from ultra.config.layers import examine_layers
from ultra.errors import ConfigError, UltraError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.config.configuration import Configuration
    from ultra.config.sections import ModelConfig

__all__ = ["Configured", "find_configured"]


class Configured(Struct, frozen=True, kw_only=True):
    """A model or an ensemble that can be named: `example` is how `ultra ask` takes it.

    `detail` says what it is, or, if it is not `available`, why it cannot be asked.
    """

    kind: Literal["model", "ensemble"]
    name: str
    available: bool
    detail: str
    example: str


def find_configured() -> list[Configured]:
    """Return what the configurations have, ensembles last; what is wrong with them is told on stderr."""
    sources = find_sources(None)
    try:
        files = read_sources(sources)
        if not any(file.table().get("models") for file in files):
            return []
        configuration, asked, problems = examine_layers(files)
    except ConfigError as error:
        for line in str(error).splitlines():
            tell(line)
        return []
    for problem in problems:
        tell(problem)
    return [*_models(configuration, asked), *_ensembles(configuration)]


def _models(configuration: Configuration, asked: tuple[str, ...] | None) -> Iterator[Configured]:
    for name, model in configuration.models.items():
        what = " or ".join(deployment.what for deployment in model.deployments)
        problem = _problem(configuration, name, model)
        only_named = "" if asked is None or name in asked else ", asked where you name it"
        weight = "" if model.weight == 1 else f", weight {model.weight:g}"
        yield Configured(
            kind="model",
            name=name,
            available=problem is None,
            detail=f"{what}{weight}{only_named}" if problem is None else problem,
            example=f"--models {name}",
        )


def _ensembles(configuration: Configuration) -> Iterator[Configured]:
    for name, ensemble in configuration.ensembles.items():
        models = ", ".join(ensemble.models or configuration.models)
        default = ", the default" if configuration.run.ensemble == name else ""
        how = f"{ensemble.strategy} of " if ensemble.strategy else ""
        yield Configured(
            kind="ensemble", name=name, available=True, detail=f"{how}{models}{default}", example=f"-e {name}"
        )


def _problem(configuration: Configuration, name: str, model: ModelConfig) -> str | None:
    """Return why no client of a model can be made; nothing is sent."""
    try:
        with configuration.explaining("models", name):
            model.connect()
    except UltraError as error:
        return str(error)
    return None
