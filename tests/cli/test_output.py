"""What commands write goes through one place, which makes it printable."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import json

import ultra.cli
from ultra.cli.json_output import write_document
from ultra.cli.output import tell, write

if TYPE_CHECKING:
    import pytest

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
