"""The panel file: every answer that a model gave in an evaluation, recorded once.

It is JSON lines: a header, then lines with a question's id and answers of it. A line is appended and synced
as each answer arrives, so a process that is killed loses nothing but calls under way. A last line that is
torn is left out when the file is read, and cut off before more is written. Once a recording is complete, the
file is written again with one line for each question.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ultra._support.checks import did_you_mean
from ultra.clients.pricing import Price
from ultra.errors import BadCall
from ultra.evals.dataset import Dataset, Question
from ultra.stores.keys import cache_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedRandom

    from ultra.messages.request import ModelRequest

__all__ = ["Panel", "PanelHeader", "PanelModel", "Recorded", "request_key"]

VERSION: Final = 1
_KEY_BYTES: Final = 12
_LARGEST: Final = 1 << 30
"""Bytes of a panel: a compressed file may be one of a million times its size."""
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What decoding may raise: the file may come from anybody."""
_MOST: Final = 1e12
"""More seconds, tokens or dollars no answer takes; beyond it, virtual time would not pass."""


class PanelModel(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model of a panel: its name in full, its weight, its price, and its context window [tokens]."""

    name: str
    identity: str = ""
    weight: float = 1.0
    price: Price | None = None
    context_window: int | None = None


class PanelHeader(Struct, frozen=True, kw_only=True):
    """The first line of a panel file.

    Attributes:
        ultra_panel: the version of the format.
        source: where the answers come from.
        digest: `Dataset.digest` of the questions.
        models: the models whose answers these are.
        grader: the name of the grader.
        secret: the key of fences and labels in prompts by which models read answers, as hexadecimal digits.
            Only under the same key are these prompts, and so their recorded answers, found again.
        timed: whether the seconds were measured.
        system: the system prompt of the questions, if there was one.
    """

    ultra_panel: int = VERSION
    source: str = ""
    digest: str = ""
    models: tuple[PanelModel, ...] = ()
    grader: str = "exact"
    secret: str = "00" * 32
    timed: bool = True
    system: str | None = None

    def __post_init__(self) -> None:
        names = [model.name for model in self.models]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"two models have the name {twice[0]!r}")
        try:
            bytes.fromhex(self.secret)
        except ValueError:
            raise ValueError("the secret is no hexadecimal number") from None


class Recorded(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer of one model, or its failure.

    `key` is `request_key` of what it was asked. `cost` is dollars of all its attempts and hedges, `seconds`
    its whole time. `text` is None where the model failed; `error` then says how.
    """

    model: str
    key: str
    text: str | None = None
    sample: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    seconds: float = 0.0
    attempts: int = 1
    finish: str | None = None
    error: str | None = None
    kind: str | None = None

    def __post_init__(self) -> None:
        for name in ("input_tokens", "output_tokens", "seconds", "cost"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= _MOST:
                raise ValueError(f"{name} is {value!r}; it must be a number from 0 to {_MOST:g}")


class _Line(Struct, omit_defaults=True):
    """Answers of one question; with the first of them, the question itself."""

    id: str
    question: Question | None = None
    answers: tuple[Recorded, ...] = ()


def request_key(request: ModelRequest) -> str:
    """Return what tells a request from others, in this panel and in every process."""
    return cache_key(request)[:_KEY_BYTES].hex()


class Panel:
    """Recorded answers, in memory and, if it has a path, in a file that grows with them.

    `open` and `create` make one with a file; close it when it is no longer written to. It is also a context
    manager that does so.
    """

    def __init__(
        self, header: PanelHeader, dataset: Dataset, answers: Iterable[tuple[str, Recorded]] = ()
    ) -> None:
        self.header = header
        self.dataset = dataset
        self._answers: dict[tuple[str, str, str], Recorded] = {}
        self._path: Path | None = None
        self._file: BufferedRandom | None = None
        for question, answer in answers:
            self.keep(question, answer)

    @classmethod
    def create(cls, path: Path, header: PanelHeader, dataset: Dataset) -> Self:
        """Return a new panel whose file is begun at `path`. Raises `BadCall` if that cannot be written."""
        panel = cls(header, dataset)
        panel._path = path
        try:
            panel._file = path.open("x+b")
        except OSError as error:
            raise BadCall(f"the panel {path} cannot be written: {error}") from None
        lines: list[object] = [header, *(_Line(question.id, question) for question in dataset.questions)]
        panel._write(b"".join(_encoded(line) for line in lines))
        return panel

    @classmethod
    def open(cls, path: str | Path, *, append: bool = False) -> Self:
        """Return the panel in a file, which may be compressed with gzip; with `append` it can be added to.

        Raises:
            BadCall: the file cannot be read, or is no panel; the message names the line.
        """
        path = Path(path)
        try:
            data = path.read_bytes()
            if data.startswith(b"\x1f\x8b"):
                if append:
                    raise BadCall(f"{path} is compressed; a panel that more is added to must not be")
                data = _decompressed(data)
        except (OSError, EOFError, zlib.error) as error:
            raise BadCall(f"the panel {path} cannot be read: {error}") from None
        whole = data.rfind(b"\n") + 1  # what follows is a line that was torn
        lines = data[:whole].split(b"\n")[:-1]
        header = _header(lines, path)
        from ultra.evals.published import is_published, read_published  # noqa: PLC0415 - it makes panels

        if is_published(header):
            return cls(*read_published(header, lines[1:], path.name))
        panel = cls._read(lines, path)
        panel._path = path  # noqa: SLF001 - its own class
        if append:
            panel._append_from(whole)  # noqa: SLF001 - as above
        return panel

    def _append_from(self, size: int) -> None:
        """Open the file to write on, behind its first `size` bytes."""
        if self._path is not None:
            self._file = self._path.open("r+b")
            self._file.truncate(size)
            self._file.seek(size)

    @classmethod
    def _read(cls, lines: list[bytes], path: Path) -> Self:
        try:
            header = msgspec.json.decode(lines[0], type=PanelHeader)
        except _UNREADABLE as error:
            raise BadCall(f"{path} is no panel that this version of Ultra reads: {error}") from None
        if header.ultra_panel != VERSION:
            raise BadCall(f"{path} is a panel of version {header.ultra_panel}; this Ultra reads {VERSION}")
        questions: dict[str, Question] = {}
        read: list[_Line] = []
        for number, line in enumerate(lines[1:], start=2):
            try:
                found = msgspec.json.decode(line, type=_Line)
            except _UNREADABLE as error:
                raise BadCall(f"{path}, line {number}, is not of a panel: {error}") from None
            if found.question is not None:
                questions.setdefault(found.id, found.question)
            read.append(found)
        panel = cls(header, Dataset(header.source or path.name, tuple(questions.values())))
        for found in read:
            for answer in found.answers:
                panel.keep(found.id, answer)
        return panel

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def models(self) -> dict[str, PanelModel]:
        """The models by name, highest weight first; ties in the order of the header."""
        ordered = sorted(self.header.models, key=lambda model: -model.weight)
        return {model.name: model for model in ordered}

    def find(self, question: str, model: str, key: str) -> Recorded | None:
        """Return the answer of a model to a request of this question, if it was recorded."""
        return self._answers.get((question, model, key))

    def keep(self, question: str, answer: Recorded) -> None:
        """Keep an answer in memory alone; a later one to the same request takes its place."""
        self._answers[question, answer.model, answer.key] = answer

    def add(self, question: str, answer: Recorded) -> None:
        """Keep an answer, and write it to the file, so that it is there whatever happens then."""
        self.keep(question, answer)
        self._write(_encoded(_Line(question, answers=(answer,))))

    def answers(self) -> Iterator[tuple[str, Recorded]]:
        """Yield all answers with the ids of their questions."""
        for (question, _, _), answer in self._answers.items():
            yield question, answer

    def drop_failures(self) -> int:
        """Forget the failures, so that these requests are asked again; return how many there were."""
        failed = [place for place, answer in self._answers.items() if answer.text is None]
        for place in failed:
            del self._answers[place]
        return len(failed)

    def check_questions(self, dataset: Dataset) -> None:
        """Raise `BadCall` unless this panel is of these questions."""
        if self.header.digest == dataset.digest:
            return
        own = {question.id for question in self.dataset.questions}
        other = [question.id for question in dataset.questions if question.id not in own]
        what = (
            f"{len(other)} of them are not in it, such as {other[0]!r}"
            if other
            else "some have another text or another right answer, or are missing"
        )
        raise BadCall(
            f"the panel has answers to other questions than {dataset.name}: {what}; "
            "give the file of its own questions, or another path for a new panel"
        )

    def compact(self) -> None:
        """Write the file again, with one line for each question, and put it in the place of the old one."""
        if self._path is None or self._file is None:
            return
        by_question: dict[str, list[Recorded]] = {question.id: [] for question in self.dataset.questions}
        for question, answer in self.answers():
            by_question.setdefault(question, []).append(answer)
        fresh = self._path.with_name(f"{self._path.name}.new")
        with fresh.open("wb") as file:
            file.write(_encoded(self.header))
            for each in self.dataset.questions:
                file.write(_encoded(_Line(each.id, each, tuple(by_question[each.id]))))
            file.flush()
            os.fsync(file.fileno())
        self.close()
        fresh.replace(self._path)
        self._append_from(self._path.stat().st_size)

    def with_models(self, models: Iterable[PanelModel], system: str | None = None) -> None:
        """Let these be the models of the panel, and this its system prompt; the file says so at once.

        Answers of other models stay.
        """
        header = replace(self.header, models=tuple(models), system=system)
        if header != self.header:
            self.header = header
            self.compact()

    def only(self, names: Iterable[str]) -> None:
        """Let the panel, in memory, have only these of its models. Raises `BadCall` for an unknown name."""
        known = {model.name: model for model in self.header.models}
        chosen = []
        for name in names:
            if name not in known:
                hint = did_you_mean(name, known)
                raise BadCall(f"the panel has no model {name!r}; it has: {', '.join(known)}{hint}")
            chosen.append(known[name])
        self.header = replace(self.header, models=tuple(chosen))

    def close(self) -> None:
        """Close the file, if there is one; answers can still be read."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())


def _encoded(line: object) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _decompressed(data: bytes) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        found = file.read(_LARGEST + 1)
    if len(found) > _LARGEST:
        raise OSError(f"it has more than {_LARGEST >> 20} MiB")
    return found


def _header(lines: list[bytes], path: Path) -> dict[str, Any]:
    try:
        header: object = msgspec.json.decode(lines[0])
    except (IndexError, *_UNREADABLE):
        header = None
    if not isinstance(header, dict) or not ("ultra_panel" in header or "panel" in header):
        raise BadCall(
            f"{path} is no panel: its first line must be the header that 'ultra eval' writes; "
            "questions without answers are given as DATA.jsonl, without --replay"
        )
    return header
