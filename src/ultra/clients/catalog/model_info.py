"""What can be known of a model: its limits, what it reads, what it can do, what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct, structs

from ultra.clients.pricing import Price
from ultra.clients.quirks import Quirks
from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Facts", "ModelInfo", "OutputMode"]

OutputMode = Literal["schema", "json", "tool", "none"]
"""How a model is made to answer in JSON.

schema: it takes a JSON schema and keeps to it. json: it writes JSON, of any shape. tool: it has neither, and
the schema is given as that of a tool that it must call. none: it can only be asked for JSON in words.
"""

_NUMBERS = ("context_window", "output_limit")


class Facts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is told of a model: by a row of the catalog, by the user, or by its provider. None: not told.

    Nothing is refused because it is not known. Where `images`, `pdf`, `audio` or `tools` is None, they are
    passed on, and the server decides; False: they are known not to be taken.

    Attributes:
        context_window: tokens that prompt and answer may have together.
        output_limit: the most tokens of an answer, reasoning included.
        images: whether it reads images.
        pdf: whether it reads PDF files.
        audio: whether it hears.
        tools: whether it calls tools.
        parallel_tools: whether it calls several tools in one answer.
        output: how it is made to answer in JSON. None: it is asked in words.
        reasoning: whether it reasons before it answers, or can.
        price: what its tokens cost. None: answers have no cost.
        quirks: how it differs from its dialect.

    Raises:
        BadCall: a number is not above 0.
    """

    context_window: int | None = None
    output_limit: int | None = None
    images: bool | None = None
    pdf: bool | None = None
    audio: bool | None = None
    tools: bool | None = None
    parallel_tools: bool | None = None
    output: OutputMode | None = None
    reasoning: bool | None = None
    price: Price | None = None
    quirks: Quirks = Quirks()

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadCall(f"{name} must be at least 1, not {value!r}")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Facts:
        """Return the facts with these names and values.

        Raises:
            BadCall: there is no such fact, or a value is of another type; the message names the choices.
        """
        for name in given:
            if name not in Facts.__struct_fields__:
                choices = ", ".join(Facts.__struct_fields__)
                raise BadCall(f"unknown fact {name!r} of a model; those that can be told are: {choices}")
        found = {name: value for name, value in given.items() if value is not None}
        for name, kind in (("price", Price), ("quirks", Quirks)):
            if isinstance(found.get(name), kind):
                found[name] = structs.asdict(found[name])
        try:
            return msgspec.convert(found, Facts)
        except msgspec.ValidationError as error:
            raise BadCall(f"what is told of the model is not allowed: {error}") from None

    def told(self) -> dict[str, Any]:
        """Return what is told, by name."""
        values = ((name, getattr(self, name)) for name in Facts.__struct_fields__)
        return {name: value for name, value in values if value is not None and value != Quirks()}


class ModelInfo(Facts, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of one model of one provider.

    Attributes:
        name: the row of the catalog that says so, as in ``openai:gpt-4o``. It may be another name than that
            of the model: that of the model without the date, or of its family. Empty: the catalog has none.
        gathered: the day, or the month, of which the row is, as in ``2026-11-29``.
    """

    name: str = ""
    gathered: str = ""

    def with_facts(self, facts: Facts) -> ModelInfo:
        """Return this with what `facts` tell in its place; quirks are joined."""
        told = facts.told()
        if not told:
            return self
        if "quirks" in told:
            told["quirks"] = self.quirks.joined(facts.quirks)
        return structs.replace(self, **told)
