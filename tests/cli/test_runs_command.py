"""`ultra runs`: what the journal has of submitted runs, as a user sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.command_line import run_ultra
from helpers.damage import FileDamage
from helpers.run_events import orchestrator_of
from ultra import ModelError
from ultra.testing import FakeModel


@pytest.fixture
async def journal(tmp_path: Path) -> str:
    """A journal with a run that was completed, and one that nobody executes."""
    store = f"sqlite:///{tmp_path}/runs.db"
    models = FakeModel("Paris.", name="a"), FakeModel("Paris.", name="b"), FakeModel("Lyon.", name="c")
    async with orchestrator_of(*models, journal=store) as orchestrator:
        run_id = await orchestrator.submit("Capital of France?", ["initial"], tags={"number": 1})
        async with orchestrator.follow(run_id) as run:
            await run.result()
    gated = FakeModel(name="a", gated=True)
    async with orchestrator_of(gated, journal=store) as orchestrator:
        await orchestrator.submit("Capital of Italy?", ["initial"])
        await gated.asked.wait()
        await orchestrator.aclose(grace=0)
    return store


async def ultra(*arguments: str, code: int = 0) -> str:
    done = await run_ultra("runs", *arguments)
    assert done.returncode == code, done.stderr.decode()
    return done.stdout.decode() if code == 0 else done.stderr.decode()


async def ids(journal: str) -> dict[str, str]:
    """The ids of the runs, by question."""
    found = json.loads(await ultra("list", "--journal", journal, "--json"))
    return {each["spec"]["request"]["messages"][-1]["content"]: each["run_id"] for each in found}


async def test_runs_are_listed_with_state_and_question(journal: str) -> None:
    lines = (await ultra("list", "--journal", journal)).splitlines()
    assert [line.split()[1] for line in lines] == ["running", "completed"]
    assert lines[0].endswith("Capital of Italy?")
    assert "synthesize" in lines[1]
    assert (await ultra("list", "--journal", journal, "--state", "completed")).count("\n") == 1
    assert (await ultra("list", "--journal", journal, "--limit", "1")).count("\n") == 1
    assert "secret" not in await ultra("list", "--journal", journal, "--json")
    assert "there are: queued" in await ultra("list", "--journal", journal, "--state", "over", code=2)


async def test_a_run_is_shown_with_its_result(journal: str) -> None:
    run_id = (await ids(journal))["Capital of France?"]
    assert "3 models answered" in await ultra("show", run_id, "--journal", journal)
    shown = json.loads(await ultra("show", run_id, "--journal", journal, "--json"))
    assert shown["tags"] == {"number": 1}
    assert shown["result"]["status"] == "success"
    assert "there is no run" in await ultra("show", "unknown", "--journal", journal, code=2)


async def test_a_run_is_followed_from_any_event(journal: str) -> None:
    run_id = (await ids(journal))["Capital of France?"]
    assert "--- initial: a" in await ultra("follow", run_id, "--journal", journal)
    lines = (await ultra("follow", run_id, "--journal", journal, "--json")).splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["seq"] for event in events] == list(range(len(events)))
    rest = await ultra("follow", run_id, "--journal", journal, "--json", "--after", str(len(events) - 3))
    assert rest.splitlines() == lines[-2:]


async def test_a_run_is_cancelled_and_then_deleted(journal: str) -> None:
    run_id = (await ids(journal))["Capital of Italy?"]
    assert "cancel it first" in await ultra("delete", run_id, "--journal", journal, code=2)
    assert "cancelled" in await ultra("cancel", run_id, "--journal", journal)
    assert "was cancelled" in await ultra("follow", run_id, "--journal", journal, code=1)
    assert "RunCancelled" in await ultra("show", run_id, "--journal", journal)
    assert "deleted" in await ultra("delete", run_id, "--journal", journal)
    assert list(await ids(journal)) == ["Capital of France?"]


@pytest.mark.parametrize("strategy", ["vote", "best_of"])
async def test_a_run_is_replayed_by_another_strategy_and_no_model_is_asked(
    journal: str, strategy: str
) -> None:
    run_id = (await ids(journal))["Capital of France?"]
    result = json.loads(await ultra("replay", run_id, "--journal", journal, "--strategy", strategy, "--json"))
    assert result["strategy"] == strategy
    assert result["final_synthesis"]["content"] == "Paris."
    assert "unknown strategy" in await ultra(
        "replay", run_id, "--journal", journal, "--strategy", "x", code=2
    )


@pytest.mark.parametrize("strategy", ["vote", "synthesize"])
async def test_a_replay_prints_the_answer_once_and_the_table_apart_from_it(
    journal: str, strategy: str
) -> None:
    run_id = (await ids(journal))["Capital of France?"]
    told = await ultra("replay", run_id, "--journal", journal, "--strategy", strategy)
    lines = told.splitlines()
    assert lines.count("Paris.") == 1
    assert lines[lines.index("Paris.") + 1] == ""
    assert lines[lines.index("Paris.") + 2].startswith("model ")


async def test_what_was_not_recorded_fails_in_a_replay(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    models = FakeModel("Paris.", name="a"), FakeModel(ModelError("no", kind="auth"), name="b")
    async with orchestrator_of(*models, journal=store) as orchestrator:
        run_id = await orchestrator.submit("Capital of France?", ["initial"])
        async with orchestrator.follow(run_id) as run:
            await run.result()
    result = json.loads(await ultra("replay", run_id, "--journal", store, "--json"))
    assert [failure["model_name"] for failure in result["failures"]] == ["b"]
    assert "no recorded answer" in result["failures"][0]["message"]


async def test_a_journal_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    assert "there is no journal" in await ultra("list", "--journal", f"sqlite:///{path}", code=2)
    assert not path.exists()
    done = await run_ultra("runs", "list", env={"XDG_DATA_HOME": str(tmp_path)})
    assert done.returncode == 2
    assert f"{tmp_path}/ultra/runs.db" in done.stderr.decode()


async def test_a_damaged_run_is_listed_and_deleted_and_keeps_no_other_from_being_shown(journal: str) -> None:
    found = await ids(journal)
    damage = FileDamage(Path(journal.removeprefix("sqlite:///")))
    await damage.spec(found["Capital of Italy?"], b"Italy", b"Itbly")
    await damage.events(found["Capital of France?"], b"Lyon", b"Lyom")

    lines = (await ultra("list", "--journal", journal)).splitlines()
    assert [found["Capital of Italy?"] in line and "JournalDamaged" in line for line in lines] == [
        True,
        False,
    ]
    told = await ultra("show", "--journal", journal, found["Capital of Italy?"], code=1)
    assert "is damaged" in told
    history = await run_ultra("log", "--journal", journal, "--json")
    assert [row["error"] is None for row in json.loads(history.stdout)] == [False, False]

    for name in (found["Capital of Italy?"][:8], found["Capital of France?"]):
        assert "deleted" in await ultra("delete", "--journal", journal, name)
    assert await ultra("list", "--journal", journal) == ""
