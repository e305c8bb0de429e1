"""What commands write goes through one place, which makes it printable."""

from __future__ import annotations

import ast
import io
import os
import struct
import sys
import termios
from fcntl import ioctl
from pathlib import Path
from typing import Final

import pytest
from msgspec import json

import ultra.cli
from ultra.cli.json_output import write_document
from ultra.cli.output import replace_what_stdout_lacks, tell, write, write_wrapped

CLI: Final = Path(ultra.cli.__file__).parent

DIRECT: Final = {
    "__init__.py": "of the missing extra, before the command line is imported",
    "output.py": "the one place",
    "final_view.py": "a line that is erased, of printable names",
    "completion_command.py": "a script of ours, for a shell",
}

NASTY: Final = "a\x1b]0;t\x07b\x9b2Jc\u202ed\u2066e\u200ff\u061cg\x00\x7f\x85h\u2028i"
CONTROLS: Final = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))} - {"\n"}
OBEYED: Final = CONTROLS | {*"\u202e\u2066\u200f\u061c\u2028"}


def test_no_other_module_of_the_command_writes_to_the_terminal_itself() -> None:
    for path in CLI.glob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        calls = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
        direct = calls & {"print", "sys.stdout.write", "sys.stderr.write"}
        assert not direct or path.name in DIRECT, (path.name, direct)


def test_what_is_written_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    write(NASTY, "next")
    tell(NASTY)
    shown = capsys.readouterr()

    assert not OBEYED & {*shown.out, *shown.err}
    assert shown.out.count("\n") == 3  # a line separator is a line end
    assert shown.err.count("\n") == 1


def test_json_says_all_and_moves_no_cursor(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_document({"text": NASTY})
    shown = capfdbinary.readouterr().out

    assert json.decode(shown) == {"text": NASTY}
    assert not OBEYED & {*shown.decode()}


@pytest.mark.parametrize(("name", "indent"), [("stdout", 4), ("stderr", 0)])
def test_on_a_narrow_terminal_lines_are_broken_between_words(
    monkeypatch: pytest.MonkeyPatch, name: str, indent: int
) -> None:
    reader, writer = os.openpty()
    ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 30, 0, 0))
    text = "a long line of many words, and a/path/that/is/longer/than/the/terminal in it"
    with os.fdopen(writer, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, name, terminal)
        tell(text) if name == "stderr" else write_wrapped(text, indent=indent)
        lines = os.read(reader, 1000).decode().split("\r\n")[:-1]
    os.close(reader)

    assert " ".join(line.strip() for line in lines) == ("ultra: " if name == "stderr" else "") + text
    assert all(len(line) <= 30 for line in lines if "path" not in line)
    assert all(line[:indent] == " " * indent for line in lines[1:])


def test_what_the_encoding_of_stdout_lacks_becomes_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    replace_what_stdout_lacks()
    write("caf\u00e9")

    assert written.getvalue() == b"caf?\n"


def test_a_stdout_that_encodes_nothing_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    replace_what_stdout_lacks()
    write("caf\u00e9")

    assert written.getvalue() == "caf\u00e9\n"


def test_elsewhere_lines_stay_whole(capsys: pytest.CaptureFixture[str]) -> None:
    write_wrapped("word " * 100, indent=4)
    tell("word " * 100)

    assert [each.count("\n") for each in capsys.readouterr()] == [1, 1]
