"""`ultra chaos` as a real process, and what it prints of violations."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
import trio

from helpers.command_line import PATIENCE, ended, interrupt, run_ultra, ultra_running
from ultra.cli import app
from ultra.simulation import campaign as campaigns
from ultra.simulation.campaign import Campaign
from ultra.simulation.record import Violation

if TYPE_CHECKING:
    from collections.abc import Callable

    from helpers.warm_python import ForkedProcess

BROKEN = Campaign(
    seeds=3,
    seconds=1.5,
    messages=4_000,
    faults={"crash": 7},
    violations=[Violation(2, 4, "out of order", 1.25, ["     1.000 s  take   /single 7"])],
)


async def test_it_prints_one_document_for_programs() -> None:
    done = await run_ultra("chaos", "--seeds", "3", "--start", "7", "--json")

    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, b"")
    assert list(document) == ["seeds", "seconds", "seeds_per_second", "violations", "faults", "checks"]
    assert (document["seeds"], document["violations"]) == (3, [])
    assert document["seeds_per_second"] > 0
    assert sum(document["faults"].values()) > 0
    assert list(document["checks"]) == [str(number) for number in range(1, 14)]


async def test_it_tells_people_what_was_injected_and_what_was_checked() -> None:
    done = await run_ultra("chaos", "--seed", "5")

    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert text.startswith("1 seed in ")
    assert "crash_on_start" in text
    assert "no violations" in text


async def test_a_replay_is_the_same_in_every_process() -> None:
    done: dict[str, subprocess.CompletedProcess[bytes]] = {}

    async def replay(hash_seed: str) -> None:
        env = {"PYTHONHASHSEED": hash_seed}
        done[hash_seed] = await run_ultra("chaos", "--seed", "5", "--trace", env=env)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(replay, "1")
        nursery.start_soon(replay, "2")

    first, second = done.values()
    assert first.returncode == 0
    assert first.stdout == second.stdout
    assert first.stdout.count(b"\n") > 100


def test_a_violation_is_shown_with_its_seed_and_its_trace_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(campaigns, "run_campaign", _give_back(BROKEN))

    code = app.run(["chaos"])

    printed = capsys.readouterr().out
    assert code == 1
    assert "4              0 times, broken 1 times" in printed
    assert "seed 2: guarantee 4 broken at 1.250 s: out of order\n         1.000 s  take" in printed
    assert "ultra chaos --seed 2 --trace" in printed
    assert printed.endswith("1 violation\n")


def test_a_violation_is_in_the_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(campaigns, "run_campaign", _give_back(BROKEN))

    code = app.run(["chaos", "--json"])

    (violation,) = json.loads(capsys.readouterr().out)["violations"]
    assert code == 1
    assert (violation["seed"], violation["guarantee"]) == (2, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trace"], "--trace shows one run"),
        (["--seed", "1", "--seeds", "3"], "leave out --seeds and --start"),
        (["--seed", "1", "--start", "3"], "leave out --seeds and --start"),
        (["--seed", "1", "--trace", "--json"], "leave one of them out"),
        (["--seeds", "0"], "greater than or equal to 1"),
        (["--seed", "-1"], "greater than or equal to 0"),
    ],
)
def test_bad_usage_is_one_line_and_ends_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = app.run(["chaos", *arguments])

    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("children", [1, 3])
async def test_ctrl_c_ends_it_with_all_its_processes(children: int) -> None:
    async with ultra_running("chaos", "--seeds", "100000", "--processes", "2") as process:
        await until_it_has(children, process)
        interrupt(process)
        code, error = await ended(process)

    assert (code, error) == (130, "")


async def test_its_processes_end_when_it_is_killed() -> None:
    async with ultra_running("chaos", "--seeds", "100000", "--processes", "2") as process:
        await until_it_has(3, process)
        process.kill()
        await ended(process)  # its processes have the same stderr, so this waits for them, too


async def until_it_has(children: int, process: ForkedProcess) -> None:
    """Wait for the tracker of resources and two workers to be started, or some of them."""
    started = trio.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not await started.exists():
        pytest.skip("only Linux tells of a process's children")
    with trio.fail_after(PATIENCE):
        while len((await started.read_text()).split()) < children:  # noqa: ASYNC110 - nobody tells of it
            await trio.sleep(0.001)


def _give_back(campaign: Campaign) -> Callable[..., Campaign]:
    def run(*_: object, **__: object) -> Campaign:
        return campaign

    return run
