"""The programs in docs/asyncio.md, run as they stand."""

from __future__ import annotations

import re
import threading

import pytest

from helpers.paths import DOCS

PAGE = (DOCS / "asyncio.md").read_text("utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS, ids=["asyncio", "trio", "portal", "worker thread"])
def test_a_program_of_the_page_runs(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(program, "docs/asyncio.md", "exec"), {"__name__": "__main__"})

    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "an answer"
    if "stream_responses" in program:
        assert (printed[-1], printed.count("RunCompleted")) == ("RunCompleted", 1)
    assert "ultra" not in [thread.name for thread in threading.enumerate()]
