"""What a run is to do, as a value: with this, another process can carry it out."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from ultra.messages.options import RunOptions
from ultra.messages.request import ModelRequest

__all__ = ["RunSpec", "StrategySpec"]


class StrategySpec(Struct, frozen=True):
    """A strategy as a value: its name in the catalog, and its options."""

    name: str
    options: dict[str, Any] = {}


class RunSpec(Struct, frozen=True, kw_only=True):
    """All that decides what a run asks.

    Attributes:
        request: what the caller asks.
        models: the names of those that may be asked.
        weights: their weights when the run was submitted. One that is taken up has those of its time.
        strategy: how they are asked and their answers merged.
        options: the settings of the run.
        own_strategy: whether the strategy is the orchestrator's own one and no value, such as an object with
            functions: then each orchestrator that takes the run up must have been made with it.
        secret: the key of the nonces that fence candidates in its prompts: only under the same key are equal
            prompts written, whose answers are then found. No repr shows it.
    """

    request: ModelRequest
    models: tuple[str, ...]
    weights: tuple[float, ...] = ()
    strategy: StrategySpec
    options: RunOptions = RunOptions()
    own_strategy: bool = False
    secret: bytes = b""

    def __repr__(self) -> str:
        return f"RunSpec(request={self.request!r}, models={self.models!r}, strategy={self.strategy!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return what may be shown."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name != "secret"]
