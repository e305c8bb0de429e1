"""How help is set on wide and on narrow terminals."""

from __future__ import annotations

import pytest

from ultra.cli import app


def help_of(*command: str, columns: int, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        assert app.run([*command, "--help"]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("command", [("ask",), ("config", "init"), ("completion",), ()])
@pytest.mark.parametrize("columns", [40, 60, 100])
def test_no_line_of_help_is_longer_than_the_terminal_but_by_a_name(
    command: tuple[str, ...], columns: int, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = help_of(*command, columns=columns, capsys=capsys)

    assert [line for line in lines if len(line) > columns and " " in line.strip()] == []


def test_on_a_narrow_terminal_what_is_told_of_an_option_stands_below_it_and_elsewhere_beside(
    capsys: pytest.CaptureFixture[str],
) -> None:
    narrow = help_of("ask", columns=60, capsys=capsys)
    wide = help_of("ask", columns=80, capsys=capsys)

    assert narrow[narrow.index("  --models NAME,...") + 1] == "      Ask only these of the models, by name."
    assert "  --models NAME,...               Ask only these of the models, by name." in wide


def test_short_names_have_their_texts_beside_them_on_a_narrow_terminal_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "  -h, --help  Show this message and exit." in help_of("completion", columns=60, capsys=capsys)


def test_what_each_shell_wants_has_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    lines = help_of("completion", columns=80, capsys=capsys)

    beginnings = {line.split()[0] for line in lines if line.strip()}
    assert beginnings >= {"bash:", "zsh:", "fish:"}
