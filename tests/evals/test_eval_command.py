"""`ultra eval` as a real process."""

from __future__ import annotations

import json
import signal
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

from helpers.chat_server import chat_server
from helpers.command_line import run_ultra
from ultra.cli.eval_session import _Signals
from ultra.errors import MissingExtra
from ultra.evals.evaluation import Evaluation
from ultra.evals.plots import plots_of
from ultra.evals.report_text import as_text
from ultra.evals.simulated import SimulatedModels, SimulatedRecorder

if TYPE_CHECKING:
    from pathlib import Path

SIMULATED = (
    "eval",
    "--simulated",
    "different-errors",
    "--limit",
    "24",
    "--samples",
    "1",
    "--strategy",
    "vote",
)


async def test_it_writes_the_report_in_every_form(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("r.html", "r.md", "fit.toml")}
    done = await run_ultra(
        *SIMULATED,
        "--html",
        str(files["r.html"]),
        "--markdown",
        str(files["r.md"]),
        "--fit",
        str(files["fit.toml"]),
    )
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    for part in (
        "ACCURACY",
        "verdict",
        "detectable",
        "best member",
        "oracle",
        "ceiling",
        "AUROC",
        "power of 80 %",
    ):
        assert part in text
    page = files["r.html"].read_text("utf-8")
    assert page.count("<svg") == 3
    for outside in ("<script", 'http-equiv="refresh', "src=", "@import", "<link"):
        assert outside not in page
    assert "| vote |" in files["r.md"].read_text("utf-8")
    assert [*tomllib.loads(files["fit.toml"].read_text("utf-8"))["ensembles"]] == [
        "vote-fitted",
        "vote-by-agreement",
    ]


async def test_it_prints_one_document_for_programs() -> None:
    done = await run_ultra(*SIMULATED, "--json")
    found = json.loads(done.stdout)
    assert (found["questions"], found["grader"]) == (24, "number")
    assert {"vote", "oracle", "best member", "random member"} <= {arm["name"] for arm in found["arms"]}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give one of: DATA.jsonl"),
        (("--simulated", "nope"), "there are: independent"),
        ((*SIMULATED[1:], "--strategy", "nope"), "unknown strategy 'nope'; there are: synthesize, vote"),
        ((*SIMULATED[1:], "--strategy", 'vote={"colour": 1}'), "no option 'colour'"),
        ((*SIMULATED[1:], "--strategy", "vote={"), "the options are no JSON"),
        ((*SIMULATED[1:], "--grader", "nope"), "unknown grader 'nope'"),
        ((*SIMULATED[1:], "--models", "model-z"), "no model 'model-z'; it has: model-a"),
        ((*SIMULATED[1:], "--judge", "model-z"), "no such model"),
        ((*SIMULATED[1:], "--max-cost", "1"), "no model is asked here"),
        ((*SIMULATED[1:], "--unrecorded", "x"), "give stop or fail"),
        (("none.jsonl", "--unrecorded", "fail"), "--unrecorded is for --replay"),
        (("none.jsonl", "--model", "local:careful"), "cannot be read"),
    ],
)
async def test_bad_usage_is_one_line_that_names_the_choices(arguments: tuple[str, ...], told: str) -> None:
    done = await run_ultra("eval", *arguments)
    assert done.returncode == 2
    assert told in done.stderr.decode()
    assert len(done.stderr.decode().splitlines()) == 1


def test_without_matplotlib_plots_are_refused_with_the_name_of_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    models = SimulatedModels(accuracies=(0.7, 0.6), questions=4)
    panel = models.panel()
    recorder = SimulatedRecorder(models, panel)
    findings = Evaluation(panel, [], recorder=recorder, most_samples=1).run()  # type: ignore[arg-type]
    assert as_text(findings)
    with pytest.raises(MissingExtra, match="'eval'"):
        plots_of(findings)


GOOD = '{"id": "one", "prompt": "2+2?", "gold": "4"}\n'


@pytest.mark.parametrize(
    ("lines", "arguments", "told"),
    [
        (GOOD + GOOD, (), "'one'"),
        (
            '{"id": "x", "prompt": "2+2?", "gold": "blue"}\n',
            ("--grader", "number"),
            "question 'x': the gold is",
        ),
        ('{"prompt": "2+2?", "gold": {"a": 1}}\n', ("--grader", "choice"), "the grader 'choice' needs"),
        ('{"gold": "4"}\n', (), "line 1"),
        (GOOD + "no json\n", (), "line 2"),
        ("", (), "no question"),
        (GOOD, ("--grader", "code"), "--allow-code"),
    ],
)
async def test_wrong_questions_are_told_before_any_model_is_asked(
    lines: str, arguments: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    data = tmp_path / "q.jsonl"
    data.write_text(lines, "utf-8")
    done = await run_ultra("eval", str(data), "--model", "local:careful", *arguments)
    assert done.returncode == 2
    assert told in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert not (tmp_path / "q.panel.jsonl").exists()


async def test_a_panel_of_other_questions_is_refused(tmp_path: Path) -> None:
    data, panel = tmp_path / "q.jsonl", tmp_path / "p.jsonl"
    data.write_text(GOOD, "utf-8")
    models = ("--model", "openai:one", "--strategy", "vote", "--samples", "1", "--panel", str(panel))
    async with chat_server() as server:
        done = await run_ultra("eval", str(data), *models, env=server.environment)
        assert done.returncode == 0, done.stderr.decode()
        data.write_text('{"id": "two", "prompt": "3+3?", "gold": "6"}\n', "utf-8")
        done = await run_ultra("eval", str(data), *models, env=server.environment)
    assert done.returncode == 2
    assert (
        "answers to other questions than q.jsonl: 1 of them are not in it, such as 'two'"
        in done.stderr.decode()
    )


async def test_where_no_price_is_known_no_dollars_are_told_and_the_limit_says_that_it_is_blind(
    tmp_path: Path,
) -> None:
    data = tmp_path / "q.jsonl"
    data.write_text(GOOD, "utf-8")
    models = ("--model", "openai:one", "--strategy", "vote", "--samples", "1")
    async with chat_server() as server:  # an address of which no price is known
        done = await run_ultra("eval", str(data), *models, "--max-cost", "1", env=server.environment)
    told = done.stderr.decode()
    assert done.returncode == 0, told
    assert "--max-cost does not see what one cost: no price is known" in told
    assert "dollars" not in told
    assert "$" not in told


def test_the_second_signal_ends_what_does_not_look_at_the_first() -> None:
    signals = _Signals()
    with signals:
        signal.raise_signal(signal.SIGTERM)
        assert signals()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signals.caught == [signal.SIGTERM, signal.SIGTERM]
