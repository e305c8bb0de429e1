"""Tool calls, put together from whole ones or from the pieces of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ultra._support.randomness import new_id
from ultra.clients.wire.json_repair import HalfCharacters
from ultra.clients.wire.text_repair import repaired
from ultra.messages.bounded_json import decode_json
from ultra.messages.chat import ToolCall
from ultra.messages.tools import canonical_arguments

if TYPE_CHECKING:
    from ultra.messages.results import FinishReason

__all__ = ["OWN_IDS", "ToolCalls", "arguments_text", "finish_with"]

OWN_IDS: Final = "call_ultra_"
"""How the ids begin that Ultra gives to calls of servers that give none."""


class _Draft:
    __slots__ = ("_canonical", "arguments", "id", "name", "signature")

    def __init__(self) -> None:
        self._canonical: tuple[int, str] | None = None
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.signature: str | None = None

    @property
    def text(self) -> str:
        """The arguments so far."""
        if len(self.arguments) > 1:
            self.arguments = ["".join(self.arguments)]
        return self.arguments[0] if self.arguments else ""

    @property
    def canonical(self) -> str:
        """The arguments so far, to compare them. Remembered: servers may repeat a call in every piece."""
        length = sum(map(len, self.arguments))
        if self._canonical is None or self._canonical[0] != length:
            self._canonical = length, canonical_arguments(self.text)
        return self._canonical[1]

    def ends_before(self, arguments: str | None) -> bool:
        """Return whether `arguments` begin another object behind a whole one: no JSON goes on so."""
        return bool(
            arguments
            and self.arguments
            and arguments.lstrip()[:1] == "{"
            and self.arguments[-1].rstrip()[-1:] == "}"
        )


class ToolCalls:
    """The calls of one answer, in the order in which they began.

    Pieces belong together by their index, else by their id. Servers differ: some leave the index out, some
    give the same one, or the same id, to every call, some repeat id and name in every piece, and some repeat
    the whole calls at the end. A piece without index and id belongs to the call before it::

        calls = ToolCalls()
        calls.add(index=0, id="c1", name="f", arguments='{"x"')
        calls.add(index=0, arguments=": 1}")
        calls.whole() == (ToolCall("c1", "f", '{"x": 1}'),)
    """

    def __init__(self) -> None:
        self._drafts: list[_Draft] = []
        self._by_index: dict[int, _Draft] = {}
        self._by_id: dict[str, _Draft] = {}

    def __bool__(self) -> bool:
        return bool(self._drafts)

    def add(
        self,
        *,
        index: int | None = None,
        id: str | None = None,  # noqa: A002 - the API's word
        name: str | None = None,
        arguments: str | None = None,
        signature: str | None = None,
    ) -> None:
        """Add a call, or a piece of one."""
        draft = self._find(index, id, name, arguments)
        if draft is None:
            return
        draft.id = draft.id or id or ""
        draft.name = draft.name or name or ""
        draft.signature = signature or draft.signature
        if arguments:
            draft.arguments.append(arguments)

    def whole(self, *, cut: bool = False) -> tuple[ToolCall, ...]:
        """Return the calls that have a name; each has an id that no other one has.

        Of an answer that was `cut` at its limit of tokens, those whose arguments are no JSON are left out,
        and a last one without arguments: they would be half calls.
        """
        drafts = [draft for draft in self._drafts if draft.name]
        if cut:
            drafts = [each for each in drafts if _is_json(each.text) or not each.text]
            drafts = drafts[:-1] if drafts and not drafts[-1].text else drafts
        taken: set[str] = set()
        calls = []
        for draft in drafts:
            given = repaired(draft.id)
            name = given if given and given not in taken else f"{OWN_IDS}{new_id()}"
            taken.add(name)
            arguments = _encodable(draft.text) or "{}"
            calls.append(ToolCall(name, repaired(draft.name), arguments, draft.signature))
        return tuple(calls)

    def _find(
        self, index: int | None, name_of_call: str | None, name: str | None, arguments: str | None
    ) -> _Draft | None:
        """Return the call that a piece belongs to, a new one too; None: it is a call that is repeated."""
        known = self._known(index, name_of_call, name)
        if known is not None and known.name and name:
            if name != known.name:
                known = None  # another call under the same id, or without one under the same index
            elif known.ends_before(arguments):
                if known.canonical == canonical_arguments(arguments or ""):
                    return None
                known = None
        if known is None:
            known = _Draft()
            self._drafts.append(known)
        if name_of_call:
            self._by_id[name_of_call] = known
        if index is not None:
            self._by_index[index] = known
        return known

    def _known(self, index: int | None, name_of_call: str | None, name: str | None) -> _Draft | None:
        """Return the call of this id, else of this index; a piece that has nothing goes on with the last."""
        if name_of_call and name_of_call in self._by_id:
            return self._by_id[name_of_call]
        if index is None:
            nothing = not name_of_call and not name and self._drafts
            return self._drafts[-1] if nothing else None
        known = self._by_index.get(index)
        other = known is not None and name_of_call and known.id and known.id != name_of_call
        return None if other else known


def finish_with(calls: tuple[ToolCall, ...], finish: FinishReason | None) -> FinishReason | None:
    """Return why the model stopped, given its calls: servers say ``stop`` with calls, and the reverse.

    An answer that says that it calls a tool and calls none is not whole: the call was lost.
    """
    if calls:
        return "tool_calls" if finish in {None, "stop"} else finish
    return "other" if finish == "tool_calls" else finish


def arguments_text(arguments: Any) -> str:  # noqa: ANN401 - any JSON
    """Return the arguments of a call as JSON text: most servers give them so, some as an object."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()


_ESCAPES: Final = (r"\ud", r"\uD", r"\u0000")


def _is_json(text: str) -> bool:
    try:
        decode_json(_encodable(text))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return True


def _encodable(arguments: str) -> str:
    """Return `arguments` without halves of characters and NUL, as such and in escapes of the JSON."""
    text = repaired(arguments)
    if not any(escape in text for escape in _ESCAPES):
        return text
    return HalfCharacters().repair(text.encode()).decode()
