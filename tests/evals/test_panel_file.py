"""The panel file: what is recorded is there whatever happens, and only what is missing is asked."""

from __future__ import annotations

import gzip
from pathlib import Path

import msgspec
import pytest

import ultra.evals.panel as panel_module
from ultra import MultiLLMOrchestrator
from ultra.clients.pricing import Price
from ultra.errors import BadCall, ModelError
from ultra.evals.arms import Arm, strategy_arm
from ultra.evals.dataset import Dataset, load_dataset
from ultra.evals.evaluation import Evaluation
from ultra.evals.panel import Panel, PanelHeader, PanelModel
from ultra.evals.recording import Progress, Recorder
from ultra.messages.results import Usage
from ultra.testing import FakeModel

PRICE = Price(input=1.0, output=2.0)


def write_questions(folder: Path, count: int = 4) -> Path:
    path = folder / "sums.jsonl"
    rows = [{"prompt": f"What is {n} + {n}?", "gold": str(2 * n)} for n in range(count)]
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return path


def header_of(dataset: Dataset, *names: str) -> PanelHeader:
    models = tuple(PanelModel(name=name, price=PRICE) for name in names)
    return PanelHeader(source="sums", digest=dataset.digest, models=models, secret="ab" * 32)


class Models:
    """Fake models, and how often each was called."""

    def __init__(self, **fakes: FakeModel) -> None:
        self.fakes = fakes

    def make(self) -> MultiLLMOrchestrator:
        orchestrator = MultiLLMOrchestrator(max_retries=0)
        for name, fake in self.fakes.items():
            orchestrator.register_model(name, fake, price=PRICE)
        return orchestrator

    @property
    def calls(self) -> int:
        return sum(len(fake.calls) for fake in self.fakes.values())


def usual() -> Models:
    usage = Usage(input=10, output=5)
    return Models(**{name: FakeModel("The answer is 2.", name=name, usage=usage) for name in "abc"})


def evaluate(
    panel: Panel, models: Models, *, strategies: tuple[str, ...] = ("vote",), **more: object
) -> Recorder:
    recorder = Recorder(panel, models.make, **more)  # type: ignore[arg-type]
    arms = [strategy_arm(name) for name in strategies]
    Evaluation(panel, arms, grader="number", recorder=recorder, most_samples=2).run()
    return recorder


def test_what_is_recorded_is_read_again_from_the_file(tmp_path: Path) -> None:
    dataset = load_dataset(write_questions(tmp_path))
    path = tmp_path / "panel.jsonl"
    with Panel.create(path, header_of(dataset, "a", "b", "c"), dataset) as panel:
        evaluate(panel, usual())
        panel.compact()
        kept = dict.fromkeys(panel.answers())
    read = Panel.open(path)
    assert dict.fromkeys(read.answers()) == kept
    assert (read.header, read.dataset.questions) == (panel.header, dataset.questions)
    # After a whole recording: the header, and a line for each question.
    assert len(path.read_bytes().splitlines()) == 1 + len(dataset.questions)


def test_a_second_evaluation_asks_nothing(tmp_path: Path) -> None:
    dataset = load_dataset(write_questions(tmp_path))
    path = tmp_path / "panel.jsonl"
    with Panel.create(path, header_of(dataset, "a", "b", "c"), dataset) as panel:
        asked = evaluate(panel, usual()).asked
    models = usual()
    with Panel.open(path, append=True) as panel:
        assert evaluate(panel, models).asked == 0
    assert (asked > 0, models.calls) == (True, 0)


def test_a_new_arm_asks_only_what_is_missing(tmp_path: Path) -> None:
    dataset = load_dataset(write_questions(tmp_path))
    path = tmp_path / "panel.jsonl"
    with Panel.create(path, header_of(dataset, "a", "b", "c"), dataset) as panel:
        evaluate(panel, usual())
        # Of each question three analyses and a synthesis, and no first answer again.
        assert evaluate(panel, usual(), strategies=("synthesize",)).asked == 4 * len(dataset.questions)


def test_a_torn_last_line_is_left_out_and_overwritten(tmp_path: Path) -> None:
    dataset = load_dataset(write_questions(tmp_path))
    path = tmp_path / "panel.jsonl"
    with Panel.create(path, header_of(dataset, "a", "b", "c"), dataset) as panel:
        evaluate(panel, usual())
        whole = len(panel)
    data = path.read_bytes()
    path.write_bytes(data[:-7])
    assert len(Panel.open(path)) == whole - 1
    with Panel.open(path, append=True) as panel:
        assert evaluate(panel, usual()).asked == 1
    assert len(Panel.open(path)) == whole


def test_answers_that_arrived_before_an_interruption_are_kept(tmp_path: Path) -> None:
    dataset = load_dataset(write_questions(tmp_path))
    path = tmp_path / "panel.jsonl"

    def interrupt(progress: Progress) -> None:
        if progress.done == 5:
            recorder.stop()

    with Panel.create(path, header_of(dataset, "a", "b", "c"), dataset) as panel:
        recorder = Recorder(panel, usual().make, on_progress=interrupt, concurrency=1)
        arms = [strategy_arm("vote")]
        evaluation = Evaluation(
            panel, arms, grader="number", recorder=recorder, interrupted=lambda: recorder.asked == 5
        )
        with pytest.raises(KeyboardInterrupt):
            evaluation.run()
    assert len(Panel.open(path)) == 5
    models = usual()
    with Panel.open(path, append=True) as panel:
        evaluate(panel, models)
        assert models.calls == len(panel) - 5


def test_progress_tells_the_cost_and_what_is_left(tmp_path: Path) -> None:
    dataset = load_dataset(write_questions(tmp_path))
    told: list[Progress] = []
    panel = Panel(header_of(dataset, "a", "b", "c"), dataset)
    evaluate(panel, usual(), on_progress=told.append)
    each = (10 * PRICE.input + 5 * PRICE.output) / 1e6
    assert told[0].cost == pytest.approx(each)
    assert told[0].cost_left == pytest.approx(each * (told[0].total - 1))
    assert told[-1].cost == pytest.approx(each * told[-1].done)


def test_the_limit_of_cost_leaves_no_answer_that_is_not_recorded(tmp_path: Path) -> None:
    dataset = load_dataset(write_questions(tmp_path))
    panel = Panel(header_of(dataset, "a", "b", "c"), dataset)
    models = usual()
    with pytest.raises(BadCall, match="not one question has the answers of all models"):
        evaluate(panel, models, max_cost=0.0001, concurrency=1)
    assert 0 < models.calls == len(panel) <= 6


def test_a_failure_is_recorded_with_its_cost_and_scores_zero(tmp_path: Path) -> None:
    dataset = load_dataset(write_questions(tmp_path))
    panel = Panel(header_of(dataset, "a", "b"), dataset)
    down = ModelError("it is down", kind="server", usage=Usage(input=10, output=0))
    models = Models(a=FakeModel("2", name="a"), b=FakeModel([down] * 99, name="b"))
    recorder = Recorder(panel, models.make)
    findings = Evaluation(panel, [strategy_arm("vote")], grader="number", recorder=recorder).run()
    assert findings.arm("b").failed == 1
    assert findings.arm("b").accuracy.value == 0
    assert findings.arm("b").cost == pytest.approx(10 / 1e6)
    assert findings.arm("vote").degraded == 1
    assert findings.arm("vote").failed == 0
    # A replay does not ask a failed model again, but it can be told to.
    assert panel.drop_failures() == len(dataset.questions)


def test_a_panel_of_other_questions_is_refused(tmp_path: Path) -> None:
    dataset = load_dataset(write_questions(tmp_path))
    panel = Panel(header_of(dataset, "a"), dataset)
    panel.check_questions(dataset)
    more = load_dataset(write_questions(tmp_path, 6))
    with pytest.raises(
        BadCall, match=r"other questions than sums.jsonl: 2 of them are not in it, such as '5'"
    ):
        panel.check_questions(more)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is no panel"),
        (b'{"prompt": "2+2?"}\n', "is no panel"),
        (b'{"ultra_panel": 9}\n', "version 9"),
        (b'{"ultra_panel": 1}\nnonsense\n', "line 2, is not of a panel"),
        (b'{"ultra_panel": "one"}\n', "is no panel that this version"),
        (b'{"ultra_panel": 1, "source": "\xff"}\n', "is no panel"),
        (b'{"ultra_panel": 1}\n{"id": "\xff"}\n', "line 2, is not of a panel"),
        (
            b'{"ultra_panel": 1}\n{"id": "1", "question": {"schema": ' + b'{"a":' * 5_000 + b"\n",
            "line 2, is not",
        ),
        (b"[" * 100_000 + b"\n", "is no panel"),
        (gzip.compress(b'{"ultra_panel": 1}\n', mtime=0)[:-4] + b"abcd", "cannot be read"),
        (gzip.compress(b'{"ultra_panel": 1}\n', mtime=0)[:12] + b"\xff" * 20, "cannot be read"),
        (b'{"panel": "x", "models": ["a"], "source": "s"}\n{"id": 1}\n', "no published panel"),
        (b'{"panel": "x", "models": ["a"], "source": "s"}\n[1]\n', "no published panel"),
        (b'{"panel": "x", "models": 5, "source": "s"}\n', "no published panel"),
        (b'{"panel": "x", "models": ["a"], "source": "s"}\nnonsense\n', "no published panel"),
        (b'{"ultra_panel": 1, "secret": "zz"}\n', "the secret is no hexadecimal number"),
        (b'{"ultra_panel": 1, "models": [{"name": "a"}, {"name": "a"}]}\n', "two models have the name 'a'"),
        (
            b'{"ultra_panel": 1}\n{"id": "q", "answers": [{"model": "a", "key": "k", "seconds": 1e308}]}\n',
            "line 2, is not of a panel: seconds is 1e\\+308",
        ),
        (
            b'{"ultra_panel": 1}\n{"id": "q", "answers": [{"model": "a", "key": "k", "cost": -1.0}]}\n',
            "cost is -1.0",
        ),
    ],
)
def test_what_is_no_panel_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadCall, match=told):
        Panel.open(path)


def test_a_compressed_panel_of_too_many_bytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panel_module, "_LARGEST", 1 << 20)
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"ultra_panel": 1}\n' + b" " * (1 << 22)))
    with pytest.raises(BadCall, match="more than 1 MiB"):
        Panel.open(path)


def test_a_panel_that_is_absent_or_there_already_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadCall, match="cannot be read"):
        Panel.open(tmp_path / "none")
    dataset = load_dataset(write_questions(tmp_path))
    Panel.create(tmp_path / "p", header_of(dataset, "a"), dataset).close()
    with pytest.raises(BadCall, match="cannot be written"):
        Panel.create(tmp_path / "p", header_of(dataset, "a"), dataset)


@pytest.mark.parametrize("reply", ["I cannot say.", ModelError("down", retryable=False)])
def test_answers_that_the_judge_gives_no_score_count_as_wrong_and_are_told(
    tmp_path: Path, reply: str | Exception
) -> None:
    dataset = load_dataset(write_questions(tmp_path))
    models = usual()
    models.fakes["c"] = FakeModel(
        lambda request: reply if "Score: N" in request.prompt else "The answer is 2."
    )
    with Panel.create(tmp_path / "panel.jsonl", header_of(dataset, "a", "b", "c"), dataset) as panel:
        recorder = Recorder(panel, models.make)
        arms = [strategy_arm("vote")]
        found = Evaluation(panel, arms, grader="judge:c", recorder=recorder, most_samples=1).run()
    assert found.arm("a").accuracy.value == 0
    assert found.notices == ("the judge gave no score to 4 answers, which count as wrong",)


def test_a_judge_that_is_no_model_of_the_panel_is_refused_before_any_call(tmp_path: Path) -> None:
    dataset = load_dataset(write_questions(tmp_path))
    models = usual()
    with (
        Panel.create(tmp_path / "panel.jsonl", header_of(dataset, "a", "b", "c"), dataset) as panel,
        pytest.raises(BadCall, match=r"the grader 'judge:d' asks 'd'.*there are: a, b, c"),
    ):
        Evaluation(panel, grader="judge:d", recorder=Recorder(panel, models.make)).run()
    assert models.calls == 0


@pytest.mark.parametrize(
    ("strategy", "options", "told"),
    [
        ("rank", {"writer": "z"}, "writer names 'z'"),
        ("vote", {"weights": {"a": 1.0}}, "weights has none for 'b'"),
        ("cascade", {"order": ["z", "a"]}, "order names 'z'"),
        ("route", {"chooser": "z"}, "chooser names 'z'"),
    ],
)
def test_an_option_that_names_no_model_of_the_panel_is_refused_before_any_call(
    tmp_path: Path, strategy: str, options: dict[str, object], told: str
) -> None:
    dataset = load_dataset(write_questions(tmp_path))
    models = usual()
    with (
        Panel.create(tmp_path / "panel.jsonl", header_of(dataset, "a", "b", "c"), dataset) as panel,
        pytest.raises(BadCall, match=told),
    ):
        Evaluation(panel, [strategy_arm(strategy, options)], recorder=Recorder(panel, models.make))
    assert models.calls == 0


def test_an_ensemble_of_models_that_are_not_measured_is_left_out_and_told(tmp_path: Path) -> None:
    dataset = load_dataset(write_questions(tmp_path))
    with Panel.create(tmp_path / "panel.jsonl", header_of(dataset, "a", "b", "c"), dataset) as panel:
        more = [
            Arm(name="ensemble far", strategy="vote", models=("a", "z")),
            Arm(name="ensemble ranked", strategy="rank", options={"writer": "z"}),
        ]
        found = Evaluation(
            panel, [], more=more, recorder=Recorder(panel, usual().make), grader="number", most_samples=1
        ).run()
    assert found.left_out == {
        "ensemble far": "it asks 'z', which is none of the models here: a, b, c",
        "ensemble ranked": "writer names 'z', which is none of the models of this run: a, b, c",
    }


def test_settings_that_no_run_can_have_are_one_error(tmp_path: Path) -> None:
    dataset = load_dataset(write_questions(tmp_path))
    with (
        Panel.create(tmp_path / "panel.jsonl", header_of(dataset, "a", "b", "c"), dataset) as panel,
        pytest.raises(BadCall, match="quorum"),
    ):
        Evaluation(panel, [], settings={"quorum": 5}, recorder=Recorder(panel, usual().make)).run()
