"""What `--fit` learns: weights of votes, the threshold of a cascade; and that it can be asked as it is."""

from __future__ import annotations

import tomllib
from functools import cache
from math import log
from typing import TYPE_CHECKING, Any

import pytest

from helpers.chat_server import chat_server
from helpers.command_line import run_ultra
from ultra import MultiLLMOrchestrator
from ultra.clients.pricing import Price
from ultra.evals.arms import Outcome, strategy_arm
from ultra.evals.evaluation import Evaluation
from ultra.evals.findings import Findings
from ultra.evals.fitted_toml import fitted_toml
from ultra.evals.fitting import (
    Candidate,
    agreement_fitter,
    cascade_candidates,
    cascade_fitter,
    cascade_orders,
    fitted_weights,
    log_odds_fitter,
)
from ultra.evals.panel import PanelModel
from ultra.evals.simulated import SimulatedModels, SimulatedRecorder
from ultra.strategies.catalog import make_strategy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VOTE = strategy_arm("vote")
CASCADE = strategy_arm("cascade")
ENSEMBLES = ("vote-fitted", "vote-by-agreement", "cascade-fitted")


def evaluated(
    models: SimulatedModels, *strategies: str, judge: str | None = None
) -> tuple[Evaluation, Findings]:
    panel = models.panel()
    evaluation = Evaluation(
        panel,
        [strategy_arm(name) for name in strategies],
        recorder=SimulatedRecorder(models, panel),  # type: ignore[arg-type]
        settings={} if judge is None else {"judge": judge},
        most_samples=1,
    )
    return evaluation, evaluation.run()


@cache
def one_strong() -> tuple[Evaluation, Findings]:
    models = SimulatedModels(accuracies=(0.9, 0.55, 0.5), correlation=0.1, questions=60)
    return evaluated(models, "vote", "cascade")


def test_weights_are_the_log_odds_of_being_right() -> None:
    weights = fitted_weights({"a": [1.0] * 90 + [0.0] * 10, "b": [1.0] * 50 + [0.0] * 50, "c": [0.0] * 9})
    assert weights == {"a": pytest.approx(log(90.5 / 10.5), abs=0.001), "b": 0.0, "c": 0.0}


def test_where_no_model_is_better_than_chance_all_weigh_the_same() -> None:
    assert fitted_weights({"a": [0.0, 0.0], "b": [0.0, 0.0]}) == {"a": 1.0, "b": 1.0}


def test_where_wrong_answers_scatter_weak_models_that_agree_have_a_say_and_else_none() -> None:
    right, wrong = [1.0] * 6 + [0.0] * 4, [0.0] * 6 + [1.0] * 4
    scores = {"a": right, "b": wrong, "c": wrong}

    def weights(*, alike: bool) -> dict[str, float]:
        finals = [{"a": "1", "b": "2", "c": "2" if alike else str(n + 3)} for n in range(6)]
        finals += [{"a": "2", "b": "1", "c": "1"} for _ in range(4)]
        found: dict[str, float] = log_odds_fitter(VOTE, scores, finals).learn(range(10))["weights"]
        return found

    assert weights(alike=True) == {"a": pytest.approx(log(6.5 / 4.5), abs=0.001), "b": 0.0, "c": 0.0}
    # Wrong answers are never the same, so there seem to be many: b and c together outvote a where they agree.
    scattered = weights(alike=False)
    assert scattered["b"] == pytest.approx(log(19 * 4.5 / 6.5), abs=0.001)
    assert scattered["b"] + scattered["c"] > scattered["a"] > scattered["b"]


def test_weights_by_agreement_look_at_no_right_answer() -> None:
    finals = [{"a": "1", "b": "1", "c": str(number)} for number in range(2, 30)]
    weights = agreement_fitter(VOTE, finals).learn(range(len(finals)))["weights"]
    assert weights["a"] == weights["b"] > weights["c"]


def test_thresholds_that_do_the_same_are_tried_once() -> None:
    def tried(models: int, *, graded: bool = False) -> list[dict[str, float]]:
        return [arm.options for arm in cascade_candidates(CASCADE, models, graded=graded)]

    assert tried(3) == [{"threshold": 0.6}, {"threshold": 0.7}]
    assert [each["threshold"] for each in tried(6)] == [0.6, 0.7, 0.8, 0.9]
    assert len(tried(3, graded=True)) == 8
    assert tried(3, graded=True)[1] == {"threshold": 0.6, "quality": 0.5}


def outcomes(scores: list[float], calls: float) -> list[Outcome]:
    return [Outcome(text="4", score=score, calls=calls, cost=calls / 1000) for score in scores]


def test_the_cheapest_cascade_that_is_as_good_as_the_best_is_chosen() -> None:
    cheap = Candidate({"threshold": 0.6}, outcomes([1.0] * 19 + [0.0], 2.1))
    dear = Candidate({"threshold": 1.0}, outcomes([1.0] * 20, 3.0))
    assert cascade_fitter(CASCADE, lambda _: [dear, cheap]).learn(range(20)) == {"threshold": 0.6}


def test_a_cascade_that_is_clearly_better_is_chosen_though_it_is_dearer() -> None:
    cheap = Candidate({"threshold": 0.6}, outcomes([1.0, 0.0] * 10, 2.1))
    dear = Candidate({"threshold": 1.0}, outcomes([1.0] * 20, 3.0))
    assert cascade_fitter(CASCADE, lambda _: [cheap, dear]).learn(range(20)) == {"threshold": 1.0}


def test_where_no_candidate_can_be_measured_nothing_is_learned() -> None:
    assert cascade_fitter(CASCADE, lambda _: []).learn(range(20)) == {}


def test_orders_that_are_tried_have_the_best_models_first_and_last() -> None:
    def tried(*usual: str) -> list[dict[str, object]]:
        scores = {"a": 0.5, "b": 0.9, "c": 0.2}
        return [arm.options for arm in cascade_orders(CASCADE, {"threshold": 0.7}, usual, scores)]

    assert tried("a", "b", "c") == [
        {"threshold": 0.7, "order": ("b", "a", "c")},
        {"threshold": 0.7, "order": ("c", "a", "b")},
    ]
    assert [options["order"] for options in tried("b", "a", "c")] == [("c", "a", "b")]


@cache
def weak_and_cheap() -> tuple[Evaluation, Findings]:
    models = SimulatedModels(
        accuracies=(0.5, 0.5, 0.5, 0.95, 0.95), prices=(1.0, 1.0, 1.0, 5.0, 5.0), questions=50
    )
    return evaluated(models, "cascade")


def test_a_cascade_learns_to_ask_the_best_models_first_where_that_is_clearly_better() -> None:
    evaluation, findings = weak_and_cheap()
    (fitted,) = evaluation.fitted
    assert set(fitted.arm.options["order"][:2]) == {"model-d", "model-e"}
    cascade, learned = findings.arm("cascade"), findings.arm("cascade, fitted")
    assert learned.accuracy.value > cascade.accuracy.value + 0.1
    assert "order model-" in learned.note


@pytest.mark.parametrize("reverse", [True, False])
def test_where_the_last_decides_a_cascade_learns_to_ask_the_best_model_last(*, reverse: bool) -> None:
    accuracies = sorted((0.4, 0.45, 0.95), reverse=reverse)
    models = SimulatedModels(accuracies=tuple(accuracies), alike=0.0, questions=60)
    panel = models.panel()
    recorder: Any = SimulatedRecorder(models, panel)
    evaluation = Evaluation(
        panel, [strategy_arm("cascade", {"end": "last"})], recorder=recorder, most_samples=1
    )
    findings = evaluation.run()
    best = "model-a" if reverse else "model-c"
    assert evaluation.fitted[0].arm.options.get("order", (best,))[-1] == best
    assert findings.arm("cascade (end=last), fitted").accuracy.value > 0.85


def test_the_order_is_written_for_the_configuration() -> None:
    evaluation, findings = weak_and_cheap()
    text = fitted_toml(evaluation.fitted, findings, evaluation.panel.models, source="s")
    options = tomllib.loads(text)["ensembles"]["cascade-fitted"]["options"]
    assert make_strategy("cascade", options) == make_strategy("cascade", evaluation.fitted[0].arm.options)


def test_what_is_learned_of_one_half_says_nothing_of_the_other() -> None:
    # What is right on the even questions is wrong on the odd ones.
    def tried(places: Sequence[int]) -> list[Candidate]:
        even, odd = ([float(at % 2 == half) for at in places] for half in (0, 1))
        return [
            Candidate({"threshold": 0.6}, outcomes(even, 2.0)),
            Candidate({"threshold": 1.0}, outcomes(odd, 2.0)),
        ]

    fitter = cascade_fitter(CASCADE, tried)
    assert fitter.arm(range(0, 20, 2), "x").options == {"threshold": 0.6}
    assert fitter.arm(range(1, 20, 2), "x").options == {"threshold": 1.0}


def test_fitted_arms_are_measured_on_the_half_that_they_were_not_learned_on() -> None:
    evaluation, findings = one_strong()
    for name in ("vote, fitted weights", "vote, weights by agreement", "cascade, fitted"):
        arm = findings.arm(name)
        assert arm.kind == "strategy"
        assert arm.note.startswith("learned on the other half: ")
        assert arm.versus_best is not None
    assert [each.ensemble for each in evaluation.fitted] == [
        "vote-fitted",
        "vote-by-agreement",
        "cascade-fitted",
    ]


def test_weights_give_the_strong_model_the_say_so_that_weak_ones_do_not_outvote_it() -> None:
    _, findings = one_strong()
    best, fitted = findings.arm("best member"), findings.arm("vote, fitted weights")
    assert fitted.accuracy.value >= best.accuracy.value - 0.02
    assert fitted.accuracy.value >= findings.arm("vote").accuracy.value


def test_with_a_judge_a_grade_is_learned_too_and_without_one_none_is_asked_for() -> None:
    models = SimulatedModels(accuracies=(0.7, 0.7, 0.9), alike=0.5, reading=0.9, questions=24)
    with_judge, findings = evaluated(models, "cascade", judge="model-c")
    (fitted,) = with_judge.fitted
    assert "threshold" in fitted.arm.options
    assert findings.arm("cascade, fitted").accuracy.value > 0
    graded = [answer for _, answer in with_judge.panel.answers() if ": 9" in (answer.text or "")]
    assert graded
    without, _ = evaluated(models, "cascade")
    assert not [answer for _, answer in without.panel.answers() if ": 9" in (answer.text or "")]


def test_what_is_written_is_a_configuration_whose_ensembles_can_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-real-key")
    evaluation, findings = one_strong()
    price = Price(input=1, output=1)
    models = {
        name: PanelModel(name=name, identity=f"openai:{name}", price=price)
        for name in evaluation.panel.models
    }
    text = fitted_toml(evaluation.fitted, findings, models, source="sums", judge="model-a")
    path = tmp_path / "fit.toml"
    path.write_text(text, "utf-8")
    orchestrator = MultiLLMOrchestrator.from_config(path)
    assert set(orchestrator.get_ensembles()) == {*ENSEMBLES}
    strategy = orchestrator.ensemble("vote-fitted").arguments["strategy"]
    assert (
        strategy.weights
        == next(e.arm.options for e in evaluation.fitted if e.ensemble == "vote-fitted")["weights"]
    )
    assert "points over the best member" in text


def test_names_with_dots_quotes_and_spaces_survive_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-real-key")
    evaluation, findings = one_strong()
    odd = {name: f'{name} "v1.5"\\' for name in evaluation.panel.models}
    fitted = [
        each._replace(
            arm=strategy_arm("vote", {"weights": {odd[n]: w for n, w in each.arm.options["weights"].items()}})
        )
        for each in evaluation.fitted[:1]
    ]
    models = {name: PanelModel(name=name, identity="openai:x") for name in odd.values()}
    path = tmp_path / "fit.toml"
    path.write_text(fitted_toml(fitted, findings, models, source="two\nlines"), "utf-8")
    made = MultiLLMOrchestrator.from_config(path)
    assert set(made.ensemble("vote-fitted").models) == set(odd.values())


def test_of_models_that_are_configured_or_unknown_only_the_ensembles_are_written() -> None:
    evaluation, findings = one_strong()
    for models, is_configured in (
        (evaluation.panel.models, False),
        ({"a": PanelModel(name="a", identity="openai:gpt")}, True),
    ):
        text = fitted_toml(
            evaluation.fitted, findings, models, source="s", judge="a", is_configured=is_configured
        )
        assert "[models." not in text
        assert "[run]" not in text
        assert "# Add these lines to the ultra.toml that has the models" in text
        assert '# The judge was "a"' in text


CONFIGURATION = """\
[models.one]
model = "openai:one"

[models.two]
model = "openai:two"
"""


async def test_the_command_writes_ensembles_that_ask_takes_as_they_are(tmp_path: Path) -> None:
    data, own, fit = tmp_path / "q.jsonl", tmp_path / "ultra.toml", tmp_path / "fit.toml"
    data.write_text("".join(f'{{"prompt": "{n}?", "gold": "x"}}\n' for n in range(4)), "utf-8")
    own.write_text(CONFIGURATION, "utf-8")
    async with chat_server() as server:
        done = await run_ultra(
            *("eval", str(data), "--config", str(own), "--strategy", "vote", "--strategy", "cascade"),
            *("--samples", "1", "--fit", str(fit)),
            env=server.environment,
        )
        assert done.returncode == 0, done.stderr.decode()
        own.write_text(CONFIGURATION + fit.read_text("utf-8"), "utf-8")
        for ensemble in ENSEMBLES:
            done = await run_ultra(
                "ask", "Where?", "--config", str(own), "--ensemble", ensemble, env=server.environment
            )
            assert done.returncode == 0, done.stderr.decode()

        alone = tmp_path / "alone.toml"
        done = await run_ultra(
            *("eval", str(data), "--model", "openai:one", "--model", "openai:two", "--strategy", "cascade"),
            *("--samples", "1", "--fit", str(alone), "--panel", str(tmp_path / "other.jsonl")),
            env=server.environment,
        )
        assert done.returncode == 0, done.stderr.decode()
        done = await run_ultra(
            *("ask", "Where?", "--config", str(alone), "--ensemble", "cascade-fitted"), env=server.environment
        )
        assert done.returncode == 0, done.stderr.decode()


async def test_where_nothing_can_be_fitted_it_is_told(tmp_path: Path) -> None:
    fit = tmp_path / "fit.toml"
    done = await run_ultra(
        *("eval", "--simulated", "independent", "--limit", "4", "--samples", "1", "--strategy", "best_of"),
        *("--fit", str(fit)),
    )
    assert done.returncode == 2
    assert "nothing can be fitted; a strategy vote or cascade must be measured" in done.stderr.decode()
    assert not fit.exists()
