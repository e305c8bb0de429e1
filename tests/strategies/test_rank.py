"""Ranking by the others: who reads what, how places are counted, and what becomes of bad rankings."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.coordinator_runs import by_weight, failing, run
from helpers.panel_members import candidates_in, member, preferring, task_of
from helpers.panels import text_panel
from ultra import BadCall, MultiLLMOrchestrator, OrchestrationResult
from ultra.errors import ModelError
from ultra.scoring.final_answers import final_answer
from ultra.strategies import Rank
from ultra.testing import FakeModel

ESSAYS = {name: f"Essay {name}, which says much about the question at hand." for name in "abcd"}


def essayist(name: str, *best: str, **tasks: Any) -> FakeModel:
    """A model with an essay of its own, who likes these essays best."""
    return member(name, ESSAYS[name], **{"rank": preferring(*(f"Essay {each}" for each in best)), **tasks})


async def ranked(*fakes: FakeModel, weights: tuple[float, ...] = (), **options: Any) -> OrchestrationResult:
    strategy = options.pop("strategy", None) or Rank()
    pairs = zip(fakes, weights or (1.0,) * len(fakes), strict=True)
    return await run(by_weight(pairs), strategy=strategy, **options)


async def test_the_answer_with_the_best_places_stands_word_for_word() -> None:
    result = await ranked(essayist("a", "c", "b"), essayist("b", "c", "a"), essayist("c", "b", "a"))
    assert result.final_synthesis == result.initial_responses["c"]
    assert (result.strategy, result.synthesis_source, result.status) == ("rank", "selected", "success")
    assert (result.confidence, result.confidence_basis) == (1.0, "ranks")
    assert [(step.name, len(step.responses)) for step in result.steps] == [("initial", 3), ("rank", 3)]
    assert list(result.ranking.items()) == [("c", 1.0), ("b", 0.5), ("a", 0.0)]
    assert result.notices == ["mean scores of the ranks (Borda, 0 to 1): 'c' 1.00, 'b' 0.50, 'a' 0.00"]


async def test_nobody_reads_its_own_answer_or_a_name() -> None:
    fakes = [essayist(name) for name in "abcd"]
    await ranked(*fakes)
    for fake in fakes:
        (request,) = [call.request for call in fake.calls if task_of(call.request) == "rank"]
        read = set(candidates_in(request).values())
        assert read == set(ESSAYS.values()) - {ESSAYS[fake.name]}


async def test_rankers_count_by_weight() -> None:
    fakes = essayist("a", "b"), essayist("b", "c"), essayist("c", "a")
    result = await ranked(*fakes, weights=(5.0, 1.0, 1.0))
    assert str(result.final_synthesis) == ESSAYS["b"]


async def test_named_rankers_rank_though_they_answer_nothing_usable() -> None:
    judge = member("d", ModelError("no", kind="bad_request"), rank=preferring("Essay b"))
    result = await ranked(essayist("a"), essayist("b"), judge, strategy=Rank(rankers=("d",)))
    assert str(result.final_synthesis) == ESSAYS["b"]


async def test_the_best_ones_are_merged_if_several_are_wanted() -> None:
    fakes = essayist("a", "c", "b"), essayist("b", "c", "d"), essayist("c", "b", "a"), essayist("d", "c", "b")
    result = await ranked(*fakes, strategy=Rank(top=2))
    assert (str(result.final_synthesis), result.synthesis_source) == ("merged by a", "primary")
    (request,) = [call.request for call in fakes[0].calls if task_of(call.request) == "merge"]
    assert set(candidates_in(request).values()) == {ESSAYS["b"], ESSAYS["c"]}
    result = await ranked(*fakes, strategy=Rank(top=2, writer="d"))
    assert str(result.final_synthesis) == "merged by d"


async def test_where_nobody_can_merge_the_first_one_stands() -> None:
    down = ModelError("no", kind="bad_request")
    fakes = [essayist(name, *order, merge=down) for name, *order in (("a", "c"), ("b", "c"), ("c", "b"))]
    result = await ranked(*fakes, strategy=Rank(top=2))
    assert (str(result.final_synthesis), result.synthesis_source) == (ESSAYS["c"], "best_candidate")
    assert result.status == "degraded"


async def test_a_malformed_ranking_is_dropped_and_told() -> None:
    fakes = essayist("a", rank="I like them all."), essayist("b", "c"), essayist("c", "b")
    result = await ranked(*fakes)
    assert result.status == "degraded"
    assert "what 'a' wrote is no ranking; it does not count" in result.notices
    assert str(result.final_synthesis) in (ESSAYS["b"], ESSAYS["c"])


async def test_a_ranking_with_holes_is_repaired_and_told() -> None:
    def names_two(request: Any) -> str:
        found = candidates_in(request)
        return " > ".join(sorted(found, key=lambda label: "Essay d" not in found[label])[:2])

    fakes = essayist("a", rank=names_two), essayist("b", "d"), essayist("c", "d"), essayist("d", "a")
    result = await ranked(*fakes)
    assert (str(result.final_synthesis), result.status) == (ESSAYS["d"], "success")
    assert any("the ranking of 'a' named some answers twice or not at all" in each for each in result.notices)


async def test_without_any_usable_ranking_the_answer_that_agrees_best_stands() -> None:
    down = ModelError("no", kind="bad_request")
    result = await ranked(*(essayist(name, rank=down) for name in "abc"))
    assert (result.synthesis_source, result.status) == ("selected", "degraded")
    assert any("there is no usable ranking" in notice for notice in result.notices)


async def test_two_answers_cannot_be_ranked_by_their_own_writers() -> None:
    fakes = essayist("a"), essayist("b")
    result = await ranked(*fakes)
    assert [len(fake.calls) for fake in fakes] == [1, 1]
    assert (result.synthesis_source, result.status) == ("selected", "success")
    assert any("too few to be ranked" in notice for notice in result.notices)


async def test_a_single_usable_answer_costs_no_ranking() -> None:
    fake = essayist("a")
    result = await ranked(fake, failing("b"))
    assert len(fake.calls) == 1
    assert "only 'a' gave a usable answer: it stands, without a ranking" in result.notices


async def test_an_answer_on_which_all_agree_is_not_ranked() -> None:
    fakes = [member(name, "The answer is 4.") for name in "abc"]
    result = await ranked(*fakes)
    assert (result.synthesis_source, result.confidence) == ("unanimous", 1.0)
    assert [len(fake.calls) for fake in fakes] == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, "top is 0; it must be a whole number, 1 or more"),
        ({"rankers": ()}, r"rankers is \(\); name one model or more"),
        ({"rankers": ("a", "a")}, "each once"),
        ({"rankers": "a"}, "rankers is 'a'; it must be a tuple of names"),
        ({"writer": ""}, "writer is ''; it must be the name of a model"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadCall, match=message):
        Rank(**options)


async def test_an_unknown_ranker_is_refused_before_any_call() -> None:
    orchestrator = MultiLLMOrchestrator()
    fakes = [essayist(name) for name in "ab"]
    for fake in fakes:
        orchestrator.register_model(fake.name, fake)
    for strategy in (Rank(rankers=("zz",)), Rank(writer="zz")):
        with pytest.raises(BadCall, match="names 'zz', which is none of the models of this run: a, b"):
            await orchestrator.process_responses("Q", strategy=strategy)
    assert [len(fake.calls) for fake in fakes] == [0, 0]


async def test_on_recorded_answers_rankers_who_trust_their_own_choose_no_worse_than_the_best_member() -> None:
    header, questions = text_panel("math-l5")
    members, right, by_member = header["models"][:4], 0, dict.fromkeys(header["models"][:4], 0)
    for question in questions[:60]:
        texts = {name: question["answers"][name]["text"] for name in members}
        fakes = [
            member(name, texts[name], rank=preferring_finals_like(texts[name]), merge="never")
            for name in members
        ]
        result = await ranked(*fakes)
        assert result.final_synthesis is not None
        assert str(result.final_synthesis) == texts[result.final_synthesis.model_name]
        right += question["answers"][result.final_synthesis.model_name]["right"]
        for name in members:
            by_member[name] += question["answers"][name]["right"]
    assert right >= max(by_member.values())


def preferring_finals_like(own: str) -> Any:
    """Rank first the candidates that come to the same final answer."""

    def rank(request: Any) -> str:
        found = candidates_in(request)
        order = sorted(found, key=lambda label: (final_answer(found[label]) != final_answer(own), label))
        return " > ".join(order)

    return rank
