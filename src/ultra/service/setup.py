"""Making the service: of a configuration, or of what can be used here without one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from ultra.clients.http.client import HTTPClient
from ultra.clients.providers import connect, embedded_models, models_with_keys
from ultra.config.file import ConfigurationFile
from ultra.config.journal import JournalConfig
from ultra.config.loading import Configuration, load_configuration
from ultra.config.serving import DEFAULT_ENSEMBLE, ServeConfig
from ultra.config.toml_lines import TomlLines
from ultra.config.trust import check_trust
from ultra.errors import ConfigError
from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
from ultra.orchestrator.submitted_runs import keep_runs
from ultra.service.core import Service
from ultra.service.generation import Actors, Generation
from ultra.stores.journal_contract import Retention
from ultra.stores.journal_memory import MemoryJournal
from ultra.stores.opening import open_limits
from ultra.strategies.best_of import BestOf
from ultra.strategies.synthesize import Synthesize

if TYPE_CHECKING:
    from ultra.service.access import Authenticator
    from ultra.stores.journal_contract import RunJournal
    from ultra.strategies.base import Strategy

__all__ = ["found_configuration", "make_generation", "make_service"]

_NO_LINES: Final = TomlLines("", "")

_IN_MEMORY: Final = Retention(seconds=86_400.0, bytes=64 * 2**20)
"""How long runs are kept where no journal is named."""

_VARIABLE: Final = "ULTRA_CONFIG"
_FILE: Final = "ultra.toml"


class _Served(MultiLLMOrchestrator):
    """An orchestrator whose clients tell that a service asks."""

    def register_model(self, name: str, client: object, weight: float = 1.0, **policies: Any) -> None:  # noqa: ANN401 - those of the base class
        for each in client if isinstance(client, list | tuple) else (client,):
            if isinstance(each, HTTPClient):
                each.tell_depth(1)
        super().register_model(name, client, weight, **policies)


def found_configuration() -> Configuration | None:
    """Return the configuration that ``ULTRA_CONFIG`` names, or ``ultra.toml`` if it is here and trusted.

    None: there is none.

    Raises:
        ConfigError: it is wrong; or it was found, asks for more than models and limits, and is not trusted.
    """
    named = os.environ.get(_VARIABLE)
    if named:
        return load_configuration(named)
    if not Path(_FILE).is_file():
        return None
    file = ConfigurationFile.read(_FILE)
    check_trust(file, f"pass --config {_FILE}, or set {_VARIABLE}={_FILE}")
    return load_configuration(file)


def make_service(
    source: str | Path | Configuration | None = None,
    *,
    access: Authenticator | None = None,
    is_one_of_several: bool = False,
) -> Service:
    """Return a service with the models and ensembles of a configuration.

    Without one, it has a model of each provider whose key is set, or else the voices of the embedded model.
    In any case there is an ensemble ``ultra`` of all models, unless something else has that name. Runs are
    kept in the journal of the configuration; without one in memory for a day, but not where it
    `is_one_of_several` processes, since each would know its own runs only.

    Raises:
        ConfigError: something in the configuration is not allowed.
        BadCall: no key is set, and the embedded model is not installed.
        MissingExtra: a model needs packages that are not installed.
    """
    in_memory = None if is_one_of_several else MemoryJournal(retention=_IN_MEMORY)
    if source is None:
        return _without_configuration(access, in_memory)
    configuration = load_configuration(source)
    run = configuration.run
    orchestrator = _orchestrator_of(configuration, None)  # first: a wrong model makes no file
    with configuration.explaining("serve", "budgets"):
        limits = open_limits(configuration.serve.budgets)
    with configuration.explaining("journal", "store"):
        opened = configuration.journal.open()
    journal = in_memory if configuration.journal.store is None else opened
    if is_one_of_several and configuration.journal.store == "memory":
        journal = None
    keep_runs(orchestrator, journal)
    return Service(
        orchestrator,
        configuration.serve,
        strategy=run.load_strategy(),
        quorum=run.quorum,
        timeout=run.timeout,
        access=access,
        limits=limits,
        journal=journal,
        configuration=configuration,
    )


def make_generation(source: Configuration, service: Service) -> Generation:
    """Return what a changed configuration makes of a service, for `Service.adopt`.

    Where only the section `[serve]` has changed, the actors stay as they are.

    Raises:
        ConfigError, BadCall, MissingExtra: as `make_service`; or something has changed that cannot be changed
            while the service runs.
    """
    old, run = service.generation, source.run
    if source.serve.budgets != service.settings.budgets:
        place = source.lines.place("serve", "budgets")
        raise ConfigError(f"{place}: where budgets are kept can only be changed by starting again")
    if source.journal != (JournalConfig() if old.configuration is None else old.configuration.journal):
        place = source.lines.place("journal")
        raise ConfigError(f"{place}: where runs are kept can only be changed by starting again")
    same = old.configuration is not None and _without_service(source) == _without_service(old.configuration)
    return Generation(
        old.actors if same else Actors(_orchestrator_of(source, service.journal)),
        source.serve,
        strategy=run.load_strategy(),
        quorum=run.quorum,
        timeout=run.timeout,
        access=service.given_access,
        configuration=source,
    )


def _orchestrator_of(configuration: Configuration, journal: RunJournal | None) -> MultiLLMOrchestrator:
    orchestrator = _Served.from_config(replace(configuration, journal=JournalConfig()))
    keep_runs(orchestrator, journal)
    _add_default(orchestrator, {})
    return orchestrator


def _without_service(configuration: Configuration) -> Configuration:
    return replace(configuration, serve=ServeConfig(), lines=_NO_LINES)


def _without_configuration(access: Authenticator | None, journal: RunJournal | None) -> Service:
    orchestrator = _Served(journal=journal)
    found = models_with_keys()
    strategy: Strategy = Synthesize(stages=("initial", "synthesis"), keep_unanimous=True)
    if not found:
        found, strategy = embedded_models(), BestOf()  # a model this small merges answers into worse ones
    for identifier in found:
        orchestrator.register_model(identifier.replace(":", "/", 1), connect(identifier))
    _add_default(orchestrator, {"strategy": strategy})
    return Service(orchestrator, ServeConfig(), strategy=strategy, access=access, journal=journal)


def _add_default(orchestrator: MultiLLMOrchestrator, arguments: dict[str, Any]) -> None:
    taken = {*orchestrator.get_ensembles(), *orchestrator.get_prioritized_models()}
    if DEFAULT_ENSEMBLE not in taken:
        orchestrator.add_ensemble(DEFAULT_ENSEMBLE, description="all models together", **arguments)
