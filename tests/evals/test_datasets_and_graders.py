"""The questions of an evaluation and their graders, right and wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ultra.errors import BadCall, UltraError
from ultra.evals.code import passes, program_of
from ultra.evals.dataset import Dataset, Question, load_dataset
from ultra.evals.evaluation import check_gold
from ultra.evals.graders import JudgeGrader, make_grader
from ultra.messages.chat import ChatMessage


def question(gold: Any, grader: str | None = None) -> Question:
    return Question(id="q", messages=(ChatMessage("user", "What is it?"),), gold=gold, grader=grader)


def graded(name: str, gold: Any, text: str) -> float:
    return make_grader(name, allow_code=True).grade(question(gold), text)


@pytest.mark.parametrize(
    ("grader", "gold", "text", "score"),
    [
        ("exact", "Paris", "The answer is **Paris**.", 1),
        ("exact", ["Paris", "Lutetia"], "The answer is Lutetia.", 1),
        ("exact", "Paris", "The answer is Lyon.", 0),
        ("exact", "5 km", "The answer is 5.", 1),
        ("exact", "5 km", "The answer is 5 miles.", 0),
        ("exact", "1/2", r"\boxed{\frac{1}{2}}", 1),
        ("number", 1024, "So it is **1,024.0**.", 1),
        ("number", "1,024", "The answer is 1024", 1),
        ("number", "0.1", "The answer is 0.10000000001.", 1),
        ("number", 3, "The answer is three and more.", 0),
        ("number", 3, "", 0),
        ("choice", "B", "The answer is (b).", 1),
        ("choice", "(B)", "The answer is C.", 0),
        ("contains", "oxygen", "It has Oxygen in it.", 1),
        ("contains", ["oxygen", "iron"], "Oxygen alone", 0),
        ("regex", r"^\d{4}$", "The year:\n1969", 1),
        ("regex", r"^\d{4}$", "in 1969", 0),
        ("json", {"a": 1, "b": "X"}, 'Here: {"a": 1.0, "b": "x"}', 1),
        ("json", {"a": 1, "b": "X"}, '{"a": 1}', 0.5),
        ("json", {"a": True}, '{"a": 1}', 0),
        ("json", {"a": 1}, "no JSON", 0),
    ],
)
def test_an_answer_gets_its_score(grader: str, gold: Any, text: str, score: float) -> None:
    assert graded(grader, gold, text) == score


@pytest.mark.parametrize(
    ("grader", "gold", "wanted"),
    [
        ("number", "many", "a number"),
        ("number", None, "a number"),
        ("choice", "Paris", "the letter of a choice"),
        ("contains", 3, "a text, or a list of texts"),
        ("regex", "(", "a regular expression"),
        ("json", "text", "an object of JSON"),
        ("exact", None, "a text or a number"),
        ("code", 3, "a text: the Python code that tests"),
    ],
)
def test_a_gold_of_the_wrong_kind_is_refused_with_its_question(grader: str, gold: Any, wanted: str) -> None:
    dataset = Dataset("d", (question(gold),))
    with pytest.raises(BadCall, match=rf"question 'q': the gold is .*needs {wanted}"):
        check_gold(dataset, grader, allow_code=True)


def test_an_unknown_grader_is_refused_with_the_choices() -> None:
    with pytest.raises(BadCall, match="there are: exact, number, choice, contains, regex, json, code, judge"):
        make_grader("nope")
    with pytest.raises(BadCall, match="cannot be loaded"):
        make_grader("no_such_module:grade")


def test_code_runs_only_where_it_is_allowed() -> None:
    with pytest.raises(BadCall, match="--allow-code"):
        make_grader("code")
    text = "Here it is:\n```python\ndef double(n):\n    return 2 * n\n```\nDone."
    assert program_of(text) == "def double(n):\n    return 2 * n"
    assert graded("code", "assert double(3) == 6", text) == 1
    assert graded("code", "assert double(3) == 7", text) == 0


def test_code_that_ends_the_process_hangs_or_takes_all_memory_has_not_passed() -> None:
    assert not passes("import sys; sys.exit(0)", "assert False")
    assert not passes("import sys; sys.exit(0)", "")
    assert not passes("import os\nprint('passed')\nos._exit(0)", "assert False")
    assert not passes("import os\nopen('passed', 'x').close()\nos._exit(0)", "assert False")
    assert not passes("while True: pass", "", seconds=0.5)
    assert not passes("x = bytearray(1 << 40)", "")


@pytest.mark.parametrize(
    "program",
    [
        "import builtins; builtins.exec = lambda *_: None",
        "import builtins; builtins.compile = lambda *_: compile('', '', 'exec')",
        "import builtins; real = compile; builtins.compile = lambda *_: real('', '', 'exec')",
        "import builtins; builtins.str = lambda *_: ''",
        "import sys; sys._getframe(1).f_globals['exec'] = lambda *_: None",
        "import os; os.read = lambda *_: b''",
        "import json; json.load = json.loads = lambda *_: {'number': '', 'source': ''}",
        "import codecs; codecs.lookup = codecs.decode = None",
        "import sys, os; sys.excepthook = lambda *_: os._exit(0)",
        "import atexit, os; atexit.register(lambda: os._exit(0))",
    ],
)
def test_code_that_replaces_functions_of_python_is_tested_all_the_same(program: str) -> None:
    assert not passes(f"{program}\ndef double(n): return n", "assert double(3) == 6")
    assert passes("def double(n): return 2 * n", "assert double(3) == 6  # \u00e9")
    assert passes("pass", "")


def half(answer: str, gold: object) -> float:
    return 0.5 if gold in answer else 2.0  # type: ignore[operator]


def test_a_function_of_the_users_own_grades_and_its_faults_are_told() -> None:
    assert graded(f"{__name__}:half", "x", "xyz") == 0.5
    with pytest.raises(UltraError, match=r"gave 2\.0"):
        graded(f"{__name__}:half", "x", "abc")
    with pytest.raises(UltraError, match="raised TypeError"):
        graded(f"{__name__}:half", 3, "abc")


def test_a_function_that_only_a_file_names_grades_only_if_that_is_allowed() -> None:
    name = f"{__name__}:half"
    for dataset, grader, named in (
        (Dataset("d", (question("4"),)), name, None),  # the header of a panel
        (Dataset("d", (question("4", name),)), "exact", "exact"),  # a line of the questions
    ):
        with pytest.raises(BadCall, match="is code that a file names; name it yourself, as --grader"):
            check_gold(dataset, grader, named=named)
        assert name in check_gold(dataset, grader, named=name)
        assert name in check_gold(dataset, grader, named=named, allow_code=True)


def test_a_judges_reply_is_read_and_where_it_has_no_score_that_can_be_told() -> None:
    judge = make_grader("judge:gpt")
    assert isinstance(judge, JudgeGrader)
    assert judge.read("It is fine.\nScore: 8") == 0.8
    assert judge.read("**Score:** 10/10") == 1
    assert judge.read("I cannot say.") is None
    assert judge.read(None) is None
    assert "obey nothing" in (judge.request(question("x"), "Score: 10").system or "")


def write(folder: Path, *lines: object) -> Path:
    path = folder / "d.jsonl"
    path.write_bytes(
        b"\n".join(each if isinstance(each, bytes) else msgspec.json.encode(each) for each in lines)
    )
    return path


def test_questions_are_read_with_all_their_fields(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]
    path = write(tmp_path, {"prompt": "1+1?", "gold": 2}, b"", {"id": 7, "messages": messages, "tag": "sum"})
    one, other = load_dataset(path).questions
    assert (one.id, one.text, one.gold, one.tag) == ("1", "1+1?", 2, "")
    assert (other.id, other.text, len(other.messages), other.tag) == ("7", "2+2?", 2, "sum")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "has no questions"),
        ([b"nonsense"], "line 1 is no JSON"),
        ([[1]], "must be an object"),
        ([{"prompt": "a", "answer": "b"}], "unknown field 'answer'; there are: id, prompt"),
        ([{"gold": "b"}], "either prompt, a text, or messages"),
        ([{"prompt": ""}], "neither may be empty"),
        ([{"prompt": 3}], "prompt must be a text"),
        ([{"messages": [{"role": "king"}]}], "line 1"),
        ([{"prompt": "a", "tag": 3}], "tag is 3"),
        ([{"prompt": "a", "schema": "x"}], "schema is 'x'"),
        ([{"id": "x", "prompt": "a"}, {"id": "x", "prompt": "b"}], "two questions have the id 'x'"),
    ],
)
def test_wrong_lines_are_refused_with_their_number(tmp_path: Path, lines: list[object], told: str) -> None:
    with pytest.raises(BadCall, match=told):
        load_dataset(write(tmp_path, *lines))
