"""What a response repeats of its request, as a value, and the run that it is of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from msgspec import Struct

from ultra.service.extension import RunFields

if TYPE_CHECKING:
    from ultra.service.refusals import Refused

__all__ = ["PROTOCOL", "ResponseShape", "RunOfResponse", "shape_of", "tags_of"]

PROTOCOL: Final = "responses"
"""The tag of kept runs of this protocol."""

_SHAPE: Final = "response"


class ResponseShape(Struct, frozen=True, kw_only=True):
    """All of a request that decides how its response is told.

    Attributes:
        model: the name that it gave.
        echo: the fields of the request that a response repeats.
        fields: what it asked to be told beside the protocol.
        is_single: whether one model is asked, and no ensemble.
        holds_text: whether the answer is told once it is whole.
        includes_encrypted: whether reasoning is sent in the form in which its provider wants it back.
        tells_reasoning: whether a stream tells what the writer thinks.
        background: whether the run goes on by itself.
        inputs: how many messages at the end of the conversation are the input, those of earlier responses
            too; what is ahead of them are instructions.
        system: what stands at the beginning of the input, in one message with the instructions beside it.
    """

    model: str
    echo: dict[str, Any]
    fields: RunFields | None = None
    is_single: bool = False
    holds_text: bool = False
    includes_encrypted: bool = False
    tells_reasoning: bool = False
    background: bool = False
    inputs: int = 0
    system: str | None = None


class RunOfResponse(Protocol):
    """The run of a response. `created`: in seconds of Unix time; `is_kept`: whether it can be retrieved."""

    @property
    def run_id(self) -> str:
        """Its name."""
        ...

    @property
    def created(self) -> int:
        """When it began."""
        ...

    @property
    def is_kept(self) -> bool:
        """Whether it is in the journal."""
        ...

    @property
    def refused(self) -> Refused | None:
        """How its models refused, if that is why it failed."""
        ...


def tags_of(shape: ResponseShape) -> dict[str, Any]:
    """Return what is kept with a run of this protocol."""
    metadata = shape.echo.get("metadata") or {}
    told = msgspec.to_builtins(shape)
    return {"protocol": PROTOCOL, "model": shape.model, "metadata": metadata, _SHAPE: told}


def shape_of(tags: dict[str, Any]) -> ResponseShape | None:
    """Return what `tags_of` has made these of; None: they are of another protocol."""
    if tags.get("protocol") != PROTOCOL:
        return None
    return msgspec.convert(tags[_SHAPE], ResponseShape)
