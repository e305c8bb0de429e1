"""The simulation itself: no violation over many seeds, repeatable, with faults of all kinds."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ultra.errors import BadCall
from ultra.simulation import campaign as campaigns
from ultra.simulation.campaign import CHUNK, Campaign, run_campaign
from ultra.simulation.one_seed import run_seed
from ultra.simulation.record import GUARANTEES, Record, Violation


@pytest.fixture(scope="module", params=[40, pytest.param(200, marks=pytest.mark.long)])
def campaign(request: pytest.FixtureRequest) -> Campaign:
    campaign = run_campaign(0, request.param, processes=2)
    assert campaign.seeds == request.param
    return campaign


def test_no_seed_breaks_a_guarantee(campaign: Campaign) -> None:
    assert [str(violation) for violation in campaign.violations] == []


def test_watchers_of_an_unresponsive_actor_may_be_told_before_its_task_has_ended() -> None:
    """In this seed an actor is stopped in the middle of a slow start, and takes longer than it may."""
    report = run_seed(200_242, trace=True)

    assert any("unresponsive" in line for line in report.trace)
    assert [str(violation) for violation in report.violations] == []


def test_every_guarantee_is_checked_again_and_again(campaign: Campaign) -> None:
    assert list(campaign.checks) == list(GUARANTEES)
    assert min(count for guarantee, count in campaign.checks.items() if guarantee != 12) > 10 * campaign.seeds
    assert campaign.checks[12] >= campaign.seeds // CHUNK


def test_every_kind_of_fault_really_occurs(campaign: Campaign) -> None:
    assert min(campaign.faults.values()) >= campaign.seeds // 18  # 2 in 40 seeds, 11 in 200
    assert sum(campaign.faults.values()) > 10 * campaign.seeds


def test_a_simulation_is_under_a_thousand_messages(campaign: Campaign) -> None:
    assert campaign.messages > 1000 * campaign.seeds


def test_the_same_seed_gives_the_same_trace_in_different_processes() -> None:
    code = (
        "import json; from ultra.simulation.one_seed import run_seed;"
        "print(json.dumps([run_seed(seed, digest=True).digest for seed in range(3)]))"
    )

    def start(hash_seed: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)

    with start("1") as first, start("2") as second:
        digests = [json.loads(process.communicate()[0]) for process in (first, second)]

    assert digests[0] == digests[1] == [run_seed(seed, digest=True).digest for seed in range(3)]
    assert len(set(digests[0])) == 3


def test_a_trace_tells_all_that_happens_in_order() -> None:
    report = run_seed(3, trace=True)

    times = [float(line.split()[0]) for line in report.trace]
    assert times == sorted(times)
    assert len(times) > report.messages


def test_a_violation_shows_the_events_about_those_concerned_and_the_last_ones() -> None:
    record = Record(7)
    for number in range(100):
        record.events.append((float(number), "send", f"/actor-{number % 10}", number))

    record.violate(4, "out of order", "/actor-3")

    (violation,) = record.violations
    assert (violation.seed, violation.guarantee, violation.time) == (7, 4, 99.0)
    assert len(violation.trace) <= 24
    assert sum("/actor-3" in line for line in violation.trace) >= 8
    assert violation.trace[-1].split() == ["99.000", "s", "send", "/actor-9", "99"]
    assert str(violation).startswith("seed 7: guarantee 4 broken at 99.000 s: out of order\n")


def test_traces_that_differ_from_process_to_process_are_a_violation() -> None:
    whole = Campaign(seeds=1, digests={7: "one"})
    whole.add(Campaign(digests={7: "one"}))
    assert (whole.checks[12], whole.violations) == (1, [])

    whole.add(Campaign(digests={7: "two"}))
    assert whole.checks[12] == 2
    assert [(violation.seed, violation.guarantee) for violation in whole.violations] == [(7, 12)]


def test_campaigns_add_up() -> None:
    whole = Campaign()
    for _ in range(2):
        whole.add(
            Campaign(
                seeds=3,
                messages=5,
                faults={"crash": 2},
                checks={1: 4},
                violations=[Violation(1, 1, "x", 0.0, [])],
            )
        )

    assert (whole.seeds, whole.messages, whole.faults, whole.checks[1]) == (6, 10, {"crash": 4}, 8)
    assert len(whole.violations) == 2
    assert Campaign(seeds=6, seconds=2.0).seeds_per_second == 3.0


def test_progress_is_told_as_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaigns, "CHUNK", 4)
    seen: list[int] = []

    run_campaign(0, 7, processes=1, on_progress=lambda campaign: seen.append(campaign.seeds))

    assert seen == [4, 7]


@pytest.mark.parametrize("numbers", [(-1, 1, 1), (0, 0, 1), (0, 1, 0)])
def test_numbers_that_make_no_campaign_are_a_bad_call(numbers: tuple[int, int, int]) -> None:
    start, seeds, processes = numbers
    with pytest.raises(BadCall, match="or more"):
        run_campaign(start, seeds, processes=processes)
