"""What one configuration makes of a service; after a reload, the next one takes its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from ultra.service.access import access_of
from ultra.service.targets import Targets

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from ultra.config.loading import Configuration
    from ultra.config.serving import ServeConfig
    from ultra.messages.options import Quorum
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
    from ultra.service.access import Authenticator
    from ultra.strategies.base import Strategy

__all__ = ["Actors", "Generation"]


class Actors:
    """An orchestrator that lives as long as it is the newest, or runs of it are under way."""

    def __init__(self, orchestrator: MultiLLMOrchestrator) -> None:
        self.orchestrator = orchestrator
        self._runs = 0
        self._retired = False
        self._changed = anyio.Event()

    def begin_run(self) -> None:
        """Note that a run is made."""
        self._runs += 1

    def end_run(self) -> None:
        """Note that a run is over."""
        self._runs -= 1
        if self._retired and not self._runs:
            self._changed.set()

    def retire(self) -> None:
        """Let it end after its runs."""
        self._retired = True
        self._changed.set()

    async def live(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the actors until it is retired and its runs are over."""
        async with self.orchestrator:
            task_status.started()
            while self._runs or not self._retired:
                self._changed = anyio.Event()
                await self._changed.wait()


class Generation:
    """The actors of a configuration, its settings, and who may ask for what."""

    def __init__(
        self,
        actors: Actors,
        settings: ServeConfig,
        *,
        strategy: Strategy | None = None,
        quorum: Quorum = 1,
        timeout: float | None = None,
        access: Authenticator | None = None,
        configuration: Configuration | None = None,
    ) -> None:
        self.actors = actors
        self.settings = settings
        self.targets = Targets(actors.orchestrator, strategy)
        self.quorum: Quorum = quorum
        self.timeout = settings.timeout if timeout is None else timeout
        self.configuration = configuration
        self.access: Authenticator = access or access_of(settings)
