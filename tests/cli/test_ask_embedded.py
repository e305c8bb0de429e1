"""`ultra ask` with the embedded model, as a newcomer types it."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from helpers.command_line import run_ultra, ultra_on_terminal
from ultra.clients import provider_statuses
from ultra.messages.results import OrchestrationResult

EMBEDDED = next(status for status in provider_statuses() if status.name == "local")

pytestmark = pytest.mark.skipif(not EMBEDDED.available, reason=EMBEDDED.detail)


def processes_with(variable: str) -> list[str]:
    """The command lines of all processes that have this in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if variable.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().decode())
        except OSError:  # it ended, or is another user's
            continue
    return found


@pytest.mark.long
async def test_the_voices_of_the_embedded_model_know_the_capital_of_france_and_leave_no_process() -> None:
    mark = uuid4().hex
    done = await run_ultra("ask", "What is the capital of France?", "--json", env={"MARK": mark})

    assert done.returncode == 0
    assert b"no key is set, so a small local model answers" in done.stderr
    result = msgspec.json.decode(done.stdout, type=OrchestrationResult)
    answers = {name: str(response) for name, response in result.initial_responses.items()}
    assert list(answers) == ["careful", "creative", "concise"]
    assert all("Paris" in answer and answer.count(".") == 1 for answer in answers.values())
    # A model this small merges badly, so one of the answers stands, word for word.
    assert result.strategy == "best_of"
    assert str(result.final_synthesis) in answers.values()
    assert (result.status, result.notices) == ("success", [])
    assert processes_with(mark) == []


@pytest.mark.parametrize("presses", [1, 2])
async def test_ctrl_c_while_the_embedded_model_starts_leaves_no_process(presses: int) -> None:
    mark = uuid4().hex
    async with ultra_on_terminal("ask", "What is the capital of France?", env={"MARK": mark}) as terminal:
        await terminal.wait_for("Answers")
        for _ in range(presses):
            await terminal.type("\x03")

        assert await terminal.wait() == 130
    assert "Traceback" not in terminal.output
    assert processes_with(mark) == []
