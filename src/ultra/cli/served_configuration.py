"""The configuration of a service that the command starts: the one that is named, or those that are found."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from ultra.cli.output import tell
from ultra.cli.sources import find_sources, load_sources
from ultra.config.ensembles import EnsembleConfig
from ultra.config.loading import load_configuration
from ultra.config.serving import DEFAULT_ENSEMBLE

if TYPE_CHECKING:
    from pathlib import Path

    from ultra.config.configuration import Configuration

__all__ = ["load_served"]

_VARIABLE: Final = "ULTRA_CONFIG"


def load_served(given: Path | None) -> Configuration | None:
    """Return the configuration at this path; without one, what ``ULTRA_CONFIG`` names, or what is found.

    Found are the ``ultra.toml`` of the working directory and the user's own below it, as `ultra ask` has
    them. Where the former has models, the ensemble ``ultra`` is of these, and the others can be named.

    Raises:
        ConfigError: it is wrong; or it was found, asks for more than models and limits, and is not trusted.
        BadCall: no file has models, and none can be used here.
    """
    named = given or os.environ.get(_VARIABLE)
    if named:
        return load_configuration(named)
    sources = find_sources(None)
    if not sources:
        return None
    path = sources[-1].path
    configuration, asked = load_sources(
        sources, f"pass --config {path}, or set {_VARIABLE}={path}", with_provider=True
    )
    if any(source.kind == "user" for source in sources):
        tell(f"using {' and '.join(str(source.path) for source in reversed(sources))}")
    if asked is None or DEFAULT_ENSEMBLE in {*configuration.ensembles, *configuration.models}:
        return configuration
    default = EnsembleConfig(models=asked, description="all models of the project together")
    return replace(configuration, ensembles={**configuration.ensembles, DEFAULT_ENSEMBLE: default})
