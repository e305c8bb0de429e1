"""Every reader of what strangers wrote takes time in proportion to its length, whatever it says."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from ultra._support.log_text import shown_text
from ultra.cli.columns import _styled
from ultra.cli.printable_text import block, one_line
from ultra.clients.cleaning import split_reasoning
from ultra.clients.wire.event_streams import EventSplitter, LineSplitter
from ultra.clients.wire.json_repair import HalfCharacters
from ultra.clients.wire.redaction import redact_keys
from ultra.clients.wire.text_repair import repaired
from ultra.evals.code import program_of
from ultra.messages.json_in_text import json_candidates
from ultra.messages.tokens import estimate_tokens
from ultra.prompts.fencing import disarm
from ultra.scoring.final_answers import equal_answers, read_answer
from ultra.scoring.judge import parse_grades, split_verdict
from ultra.scoring.normal_form import normal_form
from ultra.scoring.rankings import read_ranking
from ultra.strategies.route import _names_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE: Final = 40_000

MOST: Final = 3.0
"""Seconds of the processor for one text. What is quadratic takes ten, what is worse, hours."""


def _in_pieces(splitter: LineSplitter | EventSplitter, text: str) -> None:
    data = text.encode("utf-8", "replace")
    for at in range(0, len(data), 16):
        splitter.feed(data[at : at + 16])
    splitter.flush()


PARSERS: Final[dict[str, Callable[[str], Any]]] = {
    "final answers": read_answer,
    "normal forms": normal_form,
    "equal answers": lambda text: equal_answers([text, text + "x", text]),
    "grades": lambda text: parse_grades(text, {"A": "one", "B": "two"}),
    "grades beside candidates": lambda text: parse_grades(text, {"A": "one", "B": "two"}, [text]),
    "verdicts": split_verdict,
    "turn markers": disarm,
    "tokens": estimate_tokens,
    "one line": one_line,
    "a block": block,
    "Markdown": _styled,
    "reasoning": split_reasoning,
    "JSON in text": lambda text: list(json_candidates(text)),
    "rankings": lambda text: read_ranking(text, ["A", "B", "C"], [text]),
    "names of models": lambda text: _names_in(text, ["a", "one", "a-1"]),
    "programs": program_of,
    "keys": redact_keys,
    "log text": shown_text,
    "repaired text": repaired,
    "halves of characters": lambda text: HalfCharacters().repair(text.encode("utf-8", "replace")),
    "lines": lambda text: _in_pieces(LineSplitter(), text),
    "events": lambda text: _in_pieces(EventSplitter(), text),
}

PIECES: Final = (
    *(
        "a",
        "1",
        " ",
        "\n",
        "\\",
        "{",
        "}",
        "[",
        "]",
        "(",
        "$",
        "$$",
        "\\boxed{",
        "\\frac{",
        "\\text{",
        "####",
    ),
    *("**", "*", "`", "```", "```\n", "<answer>", "</answer>", "<answer", "the answer is ", "final answer:"),
    *(
        "A)",
        "(A",
        "A.",
        "1,",
        "0.",
        "1e",
        "-",
        "%",
        "=",
        '{"A":',
        '"',
        "'",
        '"A": 1,',
        "A: ",
        "A: 7\n",
        "/10",
    ),
    *("<think>", "</think>", "<", "<|", "|>", "<|im", "[INST]", "_", "# ", "data: ", "\r", "\r\n", "event:"),
    *(
        "B > A",
        "A = ",
        "```python ",
        "```json\n",
        "[]",
        "{} ",
        "sk-",
        "sk-a",
        "Bearer ",
        "key=",
        "\x1b[",
        "\u202e",
    ),
    *("\ud800", "\x00", "\u200b", '{"a":', "\\u", "\\ud800", "1/", "1 0 ", "½", "^", "a ", ". ", "||"),
)


def _texts(rng: random.Random) -> Iterator[str]:
    yield from PIECES
    for _ in range(20):
        yield "".join(rng.choices(PIECES, k=rng.randint(2, 4)))


@pytest.mark.parametrize("name", PARSERS)
def test_no_text_takes_a_parser_long(name: str) -> None:
    rng = random.Random(name)
    for piece in _texts(rng):
        first, last = rng.choice(PIECES), rng.choice(PIECES)
        text = first + piece * (SIZE // len(piece)) + last
        began = time.process_time()
        PARSERS[name](text)
        assert time.process_time() - began < MOST, (first, piece, last)
