"""The text of a shared run, as its readers see it, for every way of cutting it into pieces."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from ultra._support.reminders import Reminders
from ultra.messages.events import Chunk, StageStarted
from ultra.service.shared_run import Place, SharedRun

PIECES = st.lists(st.text("ab \n", max_size=4), max_size=8)


class _Stream:
    run_id = "run"
    created = 0
    is_kept = False


async def run_with(pieces: list[str], at: int, place: Place) -> tuple[SharedRun, str]:
    """A run with this text, of which a reader has read what was there after the first `at` pieces."""
    run = SharedRun(cast("Any", _Stream()), Reminders())
    run._take(StageStarted(stage="synthesis", models=("a", "b"), asks="first"))
    read = ""
    for number, piece in enumerate(pieces):
        run._take(Chunk(stage="synthesis", model_name="a", text=piece))
        if number < at:
            read += run.read(place)
    return run, read


@given(PIECES, st.integers(0, 8))
async def test_what_was_read_and_the_rest_are_the_whole_text(pieces: list[str], at: int) -> None:
    place = Place()
    run, read = await run_with(pieces, at, place)
    whole = "".join(pieces)

    rest = run.rest(place, whole)

    assert rest is not None
    assert (read + "".join(rest)).strip() == whole.strip()
    stripped = run.rest(place, whole.strip())
    assert stripped is not None
    assert (read + "".join(stripped)).strip() == whole.strip()


@given(PIECES, PIECES, st.integers(0, 8))
async def test_nobody_reads_parts_of_two_versions(first: list[str], second: list[str], at: int) -> None:
    place = Place()
    run, read = await run_with(first, at, place)
    for piece in second:
        run._take(Chunk(stage="synthesis", model_name="b", text=piece))
        read += run.read(place)
    whole = "".join(second)

    rest = run.rest(place, whole)

    assert rest is None or (read + "".join(rest)).strip() == whole.strip()
