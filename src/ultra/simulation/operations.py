"""Who runs the orchestrator of a simulation: changes weights, revives, takes a model out and puts it back."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ultra.simulation.ensemble import Ensemble

__all__ = ["Operator"]


class Operator:
    """Does something now and then, until the orchestrator ends."""

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble = ensemble
        self._random = Random(f"{ensemble.seed}/ensemble/operator")

    async def live(self) -> None:
        """Operate."""
        ensemble, random = self._ensemble, self._random
        while trio.current_time() < WORK_UNTIL:
            await trio.sleep(0.5 * random.randint(2, 8))
            if ensemble.closing:
                return
            chance = random.random()
            if chance < 0.4:
                ensemble.orchestrator.set_model_weight(
                    random.choice(ensemble.names), float(random.randint(0, 5))
                )
            elif chance < 0.8:
                self._look_and_revive()
            else:
                await self._replace("third")

    def _look_and_revive(self) -> None:
        orchestrator = self._ensemble.orchestrator
        health = orchestrator.health()
        for name, found in health.items():
            if found.status != "up":
                orchestrator.revive_model(name)

    async def _replace(self, name: str) -> None:
        """Take a model out, and put another one in its place."""
        ensemble, random = self._ensemble, self._random
        await ensemble.unregister(name, drain=random.random() < 0.5, grace=random.choice((0.0, 1.0, 5.0)))
        await trio.sleep(0.5 * random.randint(0, 2))
        if not ensemble.closing:
            ensemble.register(name)


WORK_UNTIL = 30.0
"""Virtual seconds after which nothing more is changed."""
