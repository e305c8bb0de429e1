"""Where the models come from: the user's configuration, or what can be used without one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ultra import MultiLLMOrchestrator, UltraError
from ultra.clients import connect
from ultra.clients.providers import embedded_models, models_with_keys
from ultra.config.file import ConfigurationFile
from ultra.config.loading import load_configuration
from ultra.config.trust import check_trust
from ultra.strategies.best_of import BestOf
from ultra.strategies.one_model import OneModel
from ultra.strategies.synthesize import Synthesize

if TYPE_CHECKING:
    from ultra.config.loading import Configuration

__all__ = ["ALL", "Source", "find_source"]

ALL: Final = "ultra"
"""The ensemble of all models, which there is unless the configuration has something else of that name."""

_VARIABLE: Final = "ULTRA_CONFIG"
_FILE: Final = "ultra.toml"


class Source:
    """What can be asked. `names` are those of ensembles and models, without the ``ultra/`` before them.

    `problem` is why there is nothing but the ensemble of all models, which then fails by it: llm lists models
    before each of its commands, and none of these may fail because of ours.
    """

    def __init__(
        self,
        configuration: Configuration | None = None,
        identifiers: tuple[str, ...] = (),
        problem: UltraError | None = None,
    ) -> None:
        self._configuration = configuration
        self._identifiers = {each.replace(":", "/", 1): each for each in identifiers}
        self.problem = problem
        ensembles = configuration.ensembles if configuration is not None else {}
        models = configuration.models if configuration is not None else self._identifiers
        self.names = tuple(dict.fromkeys([*ensembles, *models, *({ALL} - ensembles.keys() - models.keys())]))

    def open(self, name: str) -> tuple[MultiLLMOrchestrator, dict[str, Any]]:
        """Return an orchestrator of one's own, and the arguments of its runs that `name` stands for.

        Raises:
            UltraError: something in the configuration is not allowed, or a package is missing.
        """
        if self.problem is not None:
            raise self.problem
        if self._configuration is not None:
            orchestrator = MultiLLMOrchestrator.from_config(self._configuration)
            run = self._configuration.run
            defaults: dict[str, Any] = {"quorum": run.quorum, "timeout": run.timeout}
        else:
            orchestrator, defaults = MultiLLMOrchestrator(), {"strategy": self._strategy()}
            for registered, identifier in self._identifiers.items():
                orchestrator.register_model(registered, connect(identifier))
        ensemble = orchestrator.get_ensembles().get(name)
        if ensemble is not None:
            return orchestrator, defaults | ensemble.arguments
        if name in orchestrator.get_prioritized_models():
            return orchestrator, defaults | {"models": (name,), "strategy": OneModel(), "quorum": 1}
        return orchestrator, defaults

    def _strategy(self) -> BestOf | Synthesize:
        if any(name.startswith("local/") for name in self._identifiers):
            return BestOf()  # a model this small merges answers into worse ones
        return Synthesize(stages=("initial", "synthesis"), keep_unanimous=True)


def find_source() -> Source:
    """Return what can be asked here; nothing is sent, and nothing raised."""
    try:
        configuration = _configuration()
        if configuration is not None:
            return Source(configuration)
        return Source(identifiers=models_with_keys() or embedded_models())
    except UltraError as error:
        return Source(problem=error)


def _configuration() -> Configuration | None:
    named = os.environ.get(_VARIABLE)
    if named:
        return load_configuration(named)
    if Path(_FILE).is_file():
        file = ConfigurationFile.read(_FILE)
        check_trust(file, f"set {_VARIABLE}={_FILE}")
        return load_configuration(file)
    own = Path(click.get_app_dir("ultra"), _FILE)
    return load_configuration(own) if own.is_file() else None
