"""The picture of a terminal in README.md is what the command shows today."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from helpers.command_line import environment, programs
from helpers.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PICTURE = ROOT / "docs" / "pictures" / "terminal.svg"


def test_the_picture_is_up_to_date(tmp_path: Path) -> None:
    script = PICTURE.with_name("record_terminal.py")

    done = subprocess.run(
        [programs() / "python", script, tmp_path / "now.svg"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    same = (tmp_path / "now.svg").read_bytes() == PICTURE.read_bytes()
    assert same, f"renew it: uv run --extra cli {script.relative_to(ROOT)}"


def test_the_picture_needs_nothing_from_elsewhere_and_shows_the_end_where_nothing_moves() -> None:
    text = PICTURE.read_text("utf-8")
    root = ET.fromstring(text)

    assert len(text) < 60_000
    assert re.findall(r"https?://\S+", text) == ['http://www.w3.org/2000/svg"']
    assert "prefers-reduced-motion" in text
    svg = "{http://www.w3.org/2000/svg}"
    last = [each for each in root.iter(f"{svg}g") if each.get("class", "").endswith(" z")]
    words = " ".join("".join(line.itertext()) for line in last)
    assert "ultra ask" in words
    assert "Done in" in words
    assert "waiting for" not in words


def test_readme_and_start_page_show_it_and_tell_in_words_what_it_shows() -> None:
    for page, address in (
        ("README.md", "docs/pictures/terminal.svg"),
        ("docs/index.md", "pictures/terminal.svg"),
    ):
        (words,) = re.findall(rf"!\[([^]]+)\]\({address}\)", (ROOT / page).read_text("utf-8"))

        assert len(words) > 40
