"""The cascade: who is asked first, when it goes on, and what stands at its end."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from helpers.coordinator_runs import by_weight, failing, run
from helpers.panel_members import member
from ultra import BadCall, MultiLLMOrchestrator, OrchestrationResult, Price, QuorumNotReached, StageFailed
from ultra.strategies import Cascade
from ultra.testing import FakeModel


async def cascaded(
    *fakes: FakeModel, weights: tuple[float, ...] = (), strategy: Cascade | None = None, **fields: Any
) -> OrchestrationResult:
    """A cascade over these, the lightest first."""
    pairs = zip(fakes, weights or range(1, len(fakes) + 1), strict=True)
    return await run(by_weight(pairs), strategy=strategy or Cascade(), **fields)


def saying(**answers: str) -> list[FakeModel]:
    return [member(name, answer) for name, answer in answers.items()]


async def test_two_cheap_models_that_agree_are_enough() -> None:
    fakes = saying(a="4", b="4", c="5")
    result = await cascaded(*fakes)
    assert [len(fake.calls) for fake in fakes] == [1, 1, 0]
    assert (str(result.final_synthesis), result.confidence, result.status) == ("4", 1.0, "success")
    assert [step.name for step in result.steps] == ["initial"]


async def test_more_are_asked_only_where_these_differ_one_at_a_time() -> None:
    fakes = saying(a="4", b="5", c="5", d="9")
    result = await cascaded(*fakes, weights=(1.0, 1.1, 1.2, 1.3))
    assert [len(fake.calls) for fake in fakes] == [1, 1, 1, 0]
    assert str(result.final_synthesis) == "5"
    assert [(step.name, step.round) for step in result.steps] == [("initial", 0), ("escalation", 0)]


async def test_an_answer_that_nobody_else_gives_is_not_agreed_on_however_heavy_its_model_is() -> None:
    fakes = saying(a="4", b="5", c="4")
    result = await cascaded(*fakes, weights=(1.0, 9.0, 10.0))
    assert [len(fake.calls) for fake in fakes] == [1, 1, 1]
    assert str(result.final_synthesis) == "4"
    assert result.confidence == pytest.approx(11 / 20)


async def test_where_all_differ_the_heaviest_reads_all_and_decides() -> None:
    fakes = saying(a="4", b="5", c="6", d="7")
    result = await cascaded(*fakes, weights=(1.0, 1.0, 1.0, 1.5))
    assert str(result.final_synthesis) == "merged by d"
    assert [(step.name, step.round) for step in result.steps] == [
        ("initial", 0),
        ("escalation", 0),
        ("escalation", 1),
        ("synthesis", 0),
    ]
    assert result.notices == ["no answer was good enough: a model read the whole answers and decided"]


async def test_the_votes_of_those_who_were_asked_later_count_in_the_confidence() -> None:
    strategy = Cascade(end="last", threshold=1.0)
    result = await cascaded(*saying(a="4", b="5", c="6"), weights=(1.0, 1.0, 1.0), strategy=strategy)
    assert (str(result.final_synthesis), result.confidence_basis) == ("6", "votes")
    assert result.confidence == pytest.approx(1 / 3)


async def test_or_the_last_answer_stands_if_so_wanted() -> None:
    strategy = Cascade(end="last")
    result = await cascaded(*saying(a="4", b="5", c="6"), weights=(1.0, 1.0, 1.5), strategy=strategy)
    assert (str(result.final_synthesis), result.synthesis_source) == ("6", "selected")


async def test_the_cheapest_are_those_of_the_lowest_price_where_all_have_one() -> None:
    orchestrator = MultiLLMOrchestrator(strategy="cascade")
    fakes = {name: FakeModel("4", name=name) for name in "abc"}
    for name, dollars in (("a", 9.0), ("b", 1.0), ("c", 2.0)):
        orchestrator.register_model(name, fakes[name], price=Price(input=dollars, output=dollars))
    await orchestrator.process_responses("Q")
    assert [len(fakes[name].calls) for name in "abc"] == [0, 1, 1]
    await orchestrator.process_responses("Q2", strategy=Cascade(order=("a", "b", "c"), first=1))
    assert [len(fakes[name].calls) for name in "abc"] == [1, 2, 1]


async def test_a_test_of_the_users_own_decides() -> None:
    fakes = saying(a="no", b="yes", c="yes")
    result = await cascaded(*fakes, strategy=Cascade(first=1, test=lambda text: text == "yes"))
    assert [len(fake.calls) for fake in fakes] == [1, 1, 0]
    assert (str(result.final_synthesis), result.confidence_basis) == ("yes", "verifier")


async def test_where_nothing_passes_the_test_the_best_stands_and_it_is_told() -> None:
    result = await cascaded(
        *saying(a="no", b="no", c="nein"), strategy=Cascade(test=lambda _: 0.3, quality=0.5)
    )
    assert (result.synthesis_source, result.status) == ("best_candidate", "degraded")
    assert "no answer passed the test; the best one stands in its place" in result.notices


async def test_each_answer_is_tested_once() -> None:
    tested: list[str] = []

    def test(text: str) -> bool:
        tested.append(text)
        return False

    await cascaded(*saying(a="1", b="2", c="3", d="4"), strategy=Cascade(first=1, test=test))
    assert tested == ["1", "2", "3", "4"]


async def test_of_answers_that_do_not_pass_the_one_that_the_test_finds_best_stands() -> None:
    found = {"1": 0.1, "2": 0.4, "3": 0.2}
    result = await cascaded(
        *saying(a="1", b="2", c="3"), strategy=Cascade(test=found.__getitem__, quality=0.5)
    )
    assert (str(result.final_synthesis), result.synthesis_source) == ("2", "best_candidate")
    assert (result.confidence, result.confidence_basis) == (0.4, "verifier")


async def test_a_test_that_fails_is_told_as_the_callers_error() -> None:
    def broken(_text: str) -> bool:
        raise LookupError("mine")

    with pytest.raises(StageFailed, match="LookupError: mine"):
        await cascaded(*saying(a="1", b="1"), strategy=Cascade(test=broken))


async def test_a_low_grade_asks_more_although_the_cheap_ones_agree() -> None:
    fakes = saying(a="4", b="4", c="5")

    def scorer(_question: str, answers: dict[str, str]) -> dict[str, float]:
        return {name: 0.9 if text == "5" else 0.2 for name, text in answers.items()}

    result = await cascaded(*fakes, weights=(1.0, 1.0, 4.0), strategy=Cascade(quality=0.5), scorer=scorer)
    assert [len(fake.calls) for fake in fakes] == [1, 1, 1]
    assert str(result.final_synthesis) == "5"


async def test_a_cheap_model_that_fails_or_hangs_lets_the_others_answer(autojump_clock: MockClock) -> None:
    result = await cascaded(failing("a"), *saying(b="4", c="4"), weights=(1.0, 1.1, 1.2))
    assert (str(result.final_synthesis), result.status) == ("4", "degraded")
    hangs = FakeModel("4", name="a", seconds=1000)
    result = await cascaded(hangs, *saying(b="4", c="4"), timeout=10)
    assert (str(result.final_synthesis), result.status, hangs.running) == ("4", "degraded", 0)
    with pytest.raises(QuorumNotReached):
        await cascaded(failing("a"), failing("b"), failing("c"))


async def test_the_quorum_is_asked_for_although_the_first_agree() -> None:
    fakes = saying(a="4", b="4", c="4", d="4")
    await cascaded(*fakes, quorum=3)
    assert [len(fake.calls) for fake in fakes] == [1, 1, 1, 0]
    fakes = saying(a="4", b="4", c="4", d="4")
    await cascaded(*fakes, quorum="all")
    assert [len(fake.calls) for fake in fakes] == [1, 1, 1, 1]


async def test_a_single_usable_answer_stands_and_it_is_told() -> None:
    result = await cascaded(failing("a"), *saying(b="4"), failing("c"))
    assert (str(result.final_synthesis), result.status) == ("4", "degraded")
    assert "only 'b' gave a usable answer: it stands, without a comparison" in result.notices


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first": 0}, "first is 0; it must be a whole number"),
        ({"threshold": 2}, "threshold is 2; it must be a number from 0 to 1"),
        ({"quality": -1}, "quality is -1; it must be a number from 0 to 1, or None"),
        ({"test": 1}, "test is 1; it must be a function"),
        ({"end": "first"}, "end is 'first'; it must be one of judge, last"),
        ({"order": ("a", 1)}, "order is .*must be a tuple of names"),
        ({"judge": 1}, "judge is 1; it must be the name"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadCall, match=message):
        Cascade(**options)
