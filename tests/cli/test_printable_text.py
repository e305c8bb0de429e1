from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ultra.cli.printable_text import block, one_line, printable

any_text = st.text(st.characters(exclude_categories=()))


@given(any_text)
def test_what_is_printed_has_no_control_character_but_tab_and_newline(text: str) -> None:
    shown = printable(text)

    assert [char for char in shown if unicodedata.category(char) in {"Cc", "Cs"} and char not in "\t\n"] == []
    assert printable(shown) == shown
    shown.encode()


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"], include_characters="\t\n")))
def test_text_without_control_characters_is_printed_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_an_escape_sequence_is_shown_and_not_obeyed() -> None:
    assert printable("\x1b]0;title\x07 \x9b31m") == "␛]0;title␇ \ufffd31m"


def test_text_cannot_reorder_what_stands_beside_it() -> None:
    assert printable("\u202egnorw\u2066") == "\ufffdgnorw\ufffd"


def test_line_ends_of_every_kind_are_newlines_but_a_lone_return_overwrites_nothing() -> None:
    assert printable("one\r\ntwo\u2028three\rfour") == "one\ntwo\nthree␍four"


@given(any_text)
def test_one_line_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1


def test_a_block_keeps_its_indentation_and_loses_the_empty_lines_around_it() -> None:
    assert block("\n\n    code\n  more\n \n") == "    code\n  more"
