"""Panels that others published: questions, parsed answers and verdicts of ZeroEval, read as panels of ours.

Two forms are read: ``text`` has the texts of a few models, ``labels`` the parsed answers of many. Of labels,
the text of an answer is made: "The answer is 18.". Tokens are counted as characters / 4; nobody measured the
seconds. These answers are greedy, one a model and question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ultra.clients.catalog import model_info
from ultra.clients.pricing import Price
from ultra.errors import BadCall
from ultra.evals.dataset import Dataset, Question, check_ids
from ultra.evals.panel import PanelHeader, PanelModel, Recorded, request_key
from ultra.messages.chat import ChatMessage
from ultra.messages.request import ModelRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["is_published", "read_published"]

_CHARACTERS: Final = 4
"""Characters of a token."""
_LONGEST_TOLD: Final = 200

_PROVIDERS: Final = (
    ("openai", "gpt-"),
    ("openai", "o1-"),
    ("anthropic", "claude-"),
    ("gemini", "gemini-"),
    ("xai", "grok-"),
)
_OTHERS: Final = (
    ("chatgpt-4o-latest", Price(input=5, output=15)),
    ("Mistral-Large-2", Price(input=2, output=6)),
    ("Llama-3.1-405B", Price(input=3.5, output=3.5)),
    ("Meta-Llama-3.1-405B", Price(input=3.5, output=3.5)),
    ("Meta-Llama-3.1-70B", Price(input=0.88, output=0.88)),
    ("Meta-Llama-3-70B", Price(input=0.88, output=0.88)),
    ("Meta-Llama-3.1-8B", Price(input=0.18, output=0.18)),
    ("Meta-Llama-3-8B", Price(input=0.2, output=0.2)),
    ("Qwen2.5-72B", Price(input=1.2, output=1.2)),
    ("Qwen2.5-32B", Price(input=0.8, output=0.8)),
    ("Qwen2.5-7B", Price(input=0.3, output=0.3)),
    ("Qwen2-72B", Price(input=0.9, output=0.9)),
    ("Qwen2-7B", Price(input=0.2, output=0.2)),
    ("gemma-2-27b", Price(input=0.8, output=0.8)),
    ("gemma-2-9b", Price(input=0.3, output=0.3)),
)
"""List prices of 2024 of models that the catalog does not have under these names; open ones as hosted."""


def is_published(header: Mapping[str, Any]) -> bool:
    """Return whether this is the header of a panel of ZeroEval."""
    return "ultra_panel" not in header and {"panel", "models", "source"} <= header.keys()


def read_published(
    header: Mapping[str, Any], lines: Sequence[bytes], name: str
) -> tuple[PanelHeader, Dataset, list[tuple[str, Recorded]]]:
    """Return header, questions and answers of such a file."""
    try:
        models: list[str] = [str(model) for model in header["models"]]
        rows = [msgspec.json.decode(line) for line in lines if line.strip()]
        texts = bool(rows) and isinstance(rows[0], dict)
        read = [(_row_of_texts if texts else _row_of_labels)(row, models) for row in rows]
        source = str(header["source"])
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        msgspec.MsgspecError,
    ) as error:
        told = f"{type(error).__name__}: {error}"
        raise BadCall(f"{name} is no published panel that Ultra reads ({told[:_LONGEST_TOLD]})") from None
    questions = tuple(question for question, _ in read)
    check_ids(questions, name)
    dataset = Dataset(name, questions)
    prices = {model: _price(model) for model in models}
    made = PanelHeader(
        source=f"{name} ({source})",
        digest=dataset.digest,
        models=tuple(PanelModel(name=model, identity=model, price=prices[model]) for model in models),
        grader="exact",
        timed=False,
    )
    priced = [
        (question.id, _priced(answer, prices[answer.model]))
        for question, answers in read
        for answer in answers
    ]
    return made, dataset, priced


def _row_of_texts(row: Any, models: Sequence[str]) -> tuple[Question, list[Recorded]]:  # noqa: ANN401 - decoded JSON
    question = _question(row["id"], row["question"], row["gold"])
    key = request_key(ModelRequest(messages=question.messages))
    given = row["answers"]
    found = [
        _recorded(model, key, given[model]["text"], row["input_characters"], len(given[model]["text"]))
        for model in models
        if model in given
    ]
    return question, found


def _row_of_labels(row: Any, models: Sequence[str]) -> tuple[Question, list[Recorded]]:  # noqa: ANN401 - decoded JSON
    name, gold, answers, values, _, characters_in, characters_out = row
    question = _question(name, f"Question {name}", gold)
    key = request_key(ModelRequest(messages=question.messages))
    found = []
    for model, index, characters in zip(models, answers, characters_out, strict=True):
        text = "" if index < 0 else f"The answer is {values[index]}."
        found.append(_recorded(model, key, text, characters_in, characters))
    return question, found


def _question(name: str, text: str, gold: str) -> Question:
    return Question(id=str(name), messages=(ChatMessage("user", text),), gold=gold)


def _recorded(model: str, key: str, text: str, characters_in: int, characters_out: int) -> Recorded:
    # A model that gave nothing to parse answered all the same.
    return Recorded(
        model=model,
        key=key,
        text=text if text.strip() else "(no answer)",
        input_tokens=-(-characters_in // _CHARACTERS),
        output_tokens=-(-characters_out // _CHARACTERS),
        finish="stop",
    )


def _priced(answer: Recorded, price: Price | None) -> Recorded:
    if price is None:
        return answer
    tokens = answer.input_tokens * price.input + answer.output_tokens * price.output
    return msgspec.structs.replace(answer, cost=tokens / 1_000_000)


def _price(model: str) -> Price | None:
    """Return the price of a model by the name that ZeroEval gives it; None: it is not known here."""
    bare = model.partition("@")[0]
    for provider, start in _PROVIDERS:
        if bare.lower().startswith(start):
            return model_info(provider, bare).price
    return next((price for start, price in _OTHERS if bare.startswith(start)), None)
