"""Tool calls, put together from whole ones or from the pieces of a stream."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ultra._support.randomness import new_id
from ultra.messages.chat import ToolCall

__all__ = ["OWN_IDS", "ToolCalls", "arguments_object", "arguments_text"]

OWN_IDS: Final = "call_ultra_"
"""How the ids begin that Ultra gives to calls of servers that give none."""

_MOST: Final = 1_000  # calls in one answer; a server that sends more is broken


class _Draft:
    __slots__ = ("arguments", "id", "name", "signature")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.signature: str | None = None


class ToolCalls:
    """The calls of one answer, in the order in which they began.

    Pieces belong together by their index, else by their id. Servers differ: some leave the index out, some
    give the same one to every call but different ids, and some repeat id and name in every piece. A piece
    without index and id belongs to the call before it::

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
        draft = self._find(index, id, name)
        draft.id = draft.id or id or ""
        draft.name = draft.name or name or ""
        draft.signature = signature or draft.signature
        if arguments:
            draft.arguments.append(arguments)

    def whole(self) -> tuple[ToolCall, ...]:
        """Return the calls that have a name; one without an id gets one that no other call has."""
        return tuple(
            ToolCall(
                draft.id or f"{OWN_IDS}{new_id()}",
                draft.name,
                "".join(draft.arguments) or "{}",
                draft.signature,
            )
            for draft in self._drafts
            if draft.name
        )

    def _find(self, index: int | None, name_of_call: str | None, name: str | None) -> _Draft:
        known = self._by_id.get(name_of_call) if name_of_call else None
        if known is None and index is not None:
            known = self._by_index.get(index)
            if known is not None and name_of_call and known.id and known.id != name_of_call:
                known = None  # another call under the same index
        if known is None and index is None and not name_of_call and not name and self._drafts:
            known = self._drafts[-1]
        if known is None:
            known = _Draft()
            if len(self._drafts) < _MOST:
                self._drafts.append(known)
        if name_of_call:
            self._by_id.setdefault(name_of_call, known)
        if index is not None:
            self._by_index[index] = known
        return known


def arguments_text(arguments: Any) -> str:  # noqa: ANN401 - any JSON
    """Return the arguments of a call as JSON text: most servers give them so, some as an object."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()


def arguments_object(arguments: str) -> dict[str, Any]:
    """Return the arguments of a call as an object; what a model wrote wrongly stays readable."""
    try:
        found = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        found = arguments
    return found if isinstance(found, dict) else {"arguments": found}
