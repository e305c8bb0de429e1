"""Questions with known answers: the lines of a JSONL file, checked before any model is asked."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ultra.errors import BadCall
from ultra.messages.chat import ChatMessage
from ultra.messages.request import ModelRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Dataset", "Question", "load_dataset"]

_FIELDS: Final = ("id", "prompt", "messages", "gold", "grader", "tag", "schema")


class Question(Struct, frozen=True, kw_only=True):
    """One question of a data set.

    Attributes:
        id: its name, which no other question has.
        messages: what models are asked.
        gold: the right answer, as its grader takes it; None: the grader needs none.
        grader: the name of its grader; None: that of the whole evaluation.
        tag: the kind of question, by which the report groups; empty: none.
        schema: the JSON schema that answers must satisfy, if there is one.
    """

    id: str
    messages: tuple[ChatMessage, ...]
    gold: Any = None
    grader: str | None = None
    tag: str = ""
    schema: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """The text of the last message of the user."""
        return ModelRequest(messages=self.messages).prompt


class Dataset(Struct, frozen=True):
    """Questions in their order; `name` is what reports call them."""

    name: str
    questions: tuple[Question, ...]

    @property
    def digest(self) -> str:
        """What tells these questions from others, by their names, texts and right answers."""
        said = [(question.id, question.messages, question.gold) for question in self.questions]
        return blake2b(msgspec.json.encode(said, order="deterministic"), digest_size=16).hexdigest()

    def first(self, count: int | None) -> Dataset:
        """Return the first `count` questions; None: all."""
        return self if count is None else replace(self, questions=self.questions[:count])


def load_dataset(path: str | Path) -> Dataset:
    """Return the questions in a JSONL file: a line has prompt or messages, and gold, grader, tag, schema.

    A line without ``id`` is called by its number. Empty lines do not count.

    Raises:
        BadCall: it cannot be read; a line is no such object, has an unknown field, asks nothing, or has the
            id of another line. The message names the line.
    """
    path = Path(path)
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadCall(f"the questions in {path} cannot be read: {error}") from None
    found = [
        _question(line, str(number), f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not found:
        raise BadCall(f'{path} has no questions; a line is such as {{"prompt": "2+2?", "gold": "4"}}')
    check_ids(found, str(path))
    return Dataset(path.name, tuple(found))


def check_ids(questions: Iterable[Question], where: str) -> None:
    """Raise `BadCall` where two questions have the same id."""
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise BadCall(
                f"{where}: two questions have the id {question.id!r}; an id names one question, so that its "
                "answers are found again"
            )
        seen.add(question.id)


def _question(line: str, number: str, where: str) -> Question:
    try:
        row: object = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadCall(f"{where} is no JSON: {error}") from None
    if not isinstance(row, dict):
        raise BadCall(f"{where} is {line[:60]!r}; it must be an object of JSON with prompt or messages")
    unknown = [name for name in row if name not in _FIELDS]
    if unknown:
        raise BadCall(f"{where} has an unknown field {unknown[0]!r}; there are: {', '.join(_FIELDS)}")
    if ("prompt" in row) == ("messages" in row):
        raise BadCall(f"{where} must have either prompt, a text, or messages, a list of messages")
    texts = {name: row.get(name) for name in ("id", "grader", "tag") if row.get(name) is not None}
    if isinstance(texts.get("id"), int) and not isinstance(texts["id"], bool):
        texts["id"] = str(texts["id"])
    for name, value in texts.items():
        if not isinstance(value, str) or not value.strip():
            raise BadCall(f"{where}: {name} is {value!r}; it must be a text that is not empty")
    schema = row.get("schema")
    if not isinstance(schema, dict | None):
        raise BadCall(f"{where}: schema is {schema!r}; it must be a JSON schema, an object")
    return Question(
        id=texts.get("id") or number,
        messages=_messages(row, where),
        gold=row.get("gold"),
        grader=texts.get("grader"),
        tag=texts.get("tag") or "",
        schema=schema,
    )


def _messages(row: dict[str, Any], where: str) -> tuple[ChatMessage, ...]:
    given = row["prompt"] if "prompt" in row else row["messages"]
    if not isinstance(given, str if "prompt" in row else list) or not given:
        raise BadCall(f"{where}: prompt must be a text, messages a list of messages; neither may be empty")
    try:
        return ModelRequest.of(given).messages
    except BadCall as error:
        raise BadCall(f"{where}: {error}") from None
