"""Splitting a byte stream into lines and server-sent events, whatever the pieces it arrives in.

Lines end at CR, LF or CRLF and nowhere else (WHATWG HTML, section 9.2.5): text may hold U+2028,
U+2029 or U+0085, at which `str.splitlines` splits. So bytes are split before they are decoded.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

__all__ = ["BYTE_ORDER_MARK", "Event", "EventSplitter", "LineSplitter"]

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


# Comments have no name before their colon.
_IGNORED: Final = (b"", b"id", b"retry")

_LONGEST_STRAY: Final = 16 * 1024


class LineSplitter:
    """Turns pieces of bytes into whole lines, without their line ends."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._ended_in_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes; a line that ends in CR does not wait for an LF."""
        if self._ended_in_cr and data.startswith(b"\n"):
            self._ended_in_cr = False
            data = data[1:]
        if not data:
            return []
        self._ended_in_cr = data.endswith(b"\r")
        lines = data.splitlines()
        rest = b"" if data.endswith((b"\r", b"\n")) else lines.pop()
        if lines and self._partial:
            lines[0] = bytes(self._partial) + lines[0]
            self._partial.clear()
        self._partial += rest
        return lines

    def flush(self) -> list[bytes]:
        """Return the last line if the stream ended without a line end."""
        rest = [bytes(self._partial)] if self._partial else []
        self._partial.clear()
        return rest


class Event(Struct, frozen=True):
    """One server-sent event. `name` is ``message`` where the stream names none."""

    name: str
    data: bytes


class EventSplitter:
    """Turns pieces of bytes into server-sent events.

    Comments, ``id`` and ``retry`` are read and dropped: a request for a completion is never resumed.
    """

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._name = ""
        self._data = bytearray()  # each line with a line end behind it: many short ones take no more memory
        self._stray = bytearray()
        self._at_start = True

    @property
    def stray(self) -> bytes:
        """The lines that are no part of any event, up to a length that holds every error message."""
        return bytes(self._stray)

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes."""
        return [event for line in self._lines.feed(data) if (event := self._read(line)) is not None]

    def flush(self) -> list[Event]:
        """Return the last event if the stream ended without the blank line that ends an event.

        The standard drops such an event; servers that forget the blank line exist, and an event cut
        in half does not decode.
        """
        for line in self._lines.flush():
            self._read(line)
        last = self._read(b"")
        return [] if last is None else [last]

    def _read(self, line: bytes) -> Event | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data += value + b"\n"
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"error":
            # Older llama.cpp servers send errors in a field of this name.
            self._name = "error"
            self._data += value + b"\n"
        elif field not in _IGNORED and len(self._stray) < _LONGEST_STRAY:
            self._stray += line[:_LONGEST_STRAY] + b"\n"
        return None

    def _dispatch(self) -> Event | None:
        event = Event(self._name or "message", bytes(self._data[:-1])) if self._data else None
        self._name = ""
        self._data.clear()
        return event
