from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.clients.wire.event_streams import Event, EventSplitter, LineSplitter


def lines_of(*pieces: bytes) -> list[bytes]:
    splitter = LineSplitter()
    return [line for piece in pieces for line in splitter.feed(piece)] + splitter.flush()


def events_of(*pieces: bytes) -> list[Event]:
    splitter = EventSplitter()
    return [event for piece in pieces for event in splitter.feed(piece)] + splitter.flush()


def test_lines_end_at_cr_lf_and_crlf() -> None:
    assert lines_of(b"a\nb\rc\r\nd\n\ne\r\r\nf") == [b"a", b"b", b"c", b"d", b"", b"e", b"", b"f"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_lines_end_at_nothing_else(separator: str) -> None:
    line = f"a{separator}b".encode()
    assert lines_of(line + b"\n") == [line]


def test_a_line_that_ends_in_cr_does_not_wait_for_what_follows() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"a\r") == [b"a"]
    assert splitter.feed(b"\nb\n") == [b"b"]


def test_an_lf_of_its_own_after_a_split_crlf_is_a_line() -> None:
    assert lines_of(b"a\r", b"\n", b"\n") == [b"a", b""]


@given(st.lists(st.binary(max_size=6).map(lambda data: data.replace(b"a", b"\r").replace(b"b", b"\n"))))
def test_lines_do_not_depend_on_where_the_pieces_end(pieces: list[bytes]) -> None:
    assert lines_of(*pieces) == b"".join(pieces).splitlines()


@given(st.binary(), st.integers(1, 9))
def test_events_do_not_depend_on_where_the_pieces_end(tail: bytes, size: int) -> None:
    stream = b"event: one\r\ndata: 1\r\n\r\n: note\ndata:2\ndata: 3\n\n" + tail
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert events_of(*pieces) == events_of(stream)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [Event("message", b"a")]),
        (b"data:a\n\n", [Event("message", b"a")]),
        (b"data:  a\n\n", [Event("message", b" a")]),
        (b"data: a\ndata: b\n\n", [Event("message", b"a\nb")]),
        (b"event: error\ndata: a\n\ndata: b\n\n", [Event("error", b"a"), Event("message", b"b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Event("message", b"a")]),
        (b": comment\n\nid: 1\n\nretry: 3000\n\n", []),
        (b"event: lost\n\ndata: a\n\n", [Event("message", b"a")]),
        (b"data\n\n", [Event("message", b"")]),
        (b"unknown: a\ndatabase: b\n\n", []),
        (b'error: {"code":400}\n\n', [Event("error", b'{"code":400}')]),
        (b"data: cut off without a blank line", [Event("message", b"cut off without a blank line")]),
    ],
)
def test_events_are_read_as_the_standard_says(stream: bytes, events: list[Event]) -> None:
    assert events_of(stream) == events
