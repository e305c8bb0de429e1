"""An actor that notes what becomes of it."""

from __future__ import annotations

from typing import Any

from helpers.scripted_actors import (
    ScriptedActor,
)


class Noting(ScriptedActor):
    """Notes when it is made, starts, and stops."""

    def __init__(self, log: list[Any]) -> None:
        super().__init__(log)
        log.append("made")

    async def on_start(self) -> None:
        assert self.log is not None
        self.log.append("started")

    async def on_stop(self) -> None:
        assert self.log is not None
        self.log.append("stopped")
