"""What a fake model answers: a text, a list, a mapping, or a function of the request."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from inspect import isawaitable, isclass
from itertools import count
from typing import TYPE_CHECKING, Final, TypeAlias, TypedDict, TypeGuard, Unpack, cast

import msgspec
from msgspec.structs import replace

from ultra._support.checks import check_seconds
from ultra.errors import BadCall, ModelError
from ultra.messages.chat import ToolCall
from ultra.messages.reasoning import ReasoningDelta, reasoning_pieces
from ultra.messages.results import Completion

if TYPE_CHECKING:
    from ultra.messages.chat import ReasoningPart
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import FinishReason, Usage

__all__ = ["FakeAnswer", "Script", "ScriptReader", "ScriptedAnswer", "to_raise"]


_NUMBERS: Final = count(1)  # of scripted calls of tools


class _CompletionFields(TypedDict, total=False):
    """What a completion has beside its text."""

    usage: Usage | None
    finish_reason: FinishReason | None
    request_id: str | None
    model: str | None
    reasoning: str | None
    refusal: str | None
    tool_calls: tuple[ToolCall, ...]
    reasoning_parts: tuple[ReasoningPart, ...]
    stop_sequence: str | None


class FakeAnswer:
    """One answer, with how it comes: the pieces of its text, and the fields of its `Completion`.

        FakeAnswer("The capital ", "is ", "Paris.", piece_seconds=0.5)
        FakeAnswer("Paris.", seconds=3, usage=Usage(input=7, output=2))
        FakeAnswer("The capital is", finish_reason="length")
        FakeAnswer(refusal="I cannot help with that.")
        FakeAnswer(tool_calls=(ToolCall(id="1", name="weather", arguments='{"city": "Paris"}'),))
        FakeAnswer(seconds=math.inf)
        FakeAnswer.calling("weather", city="Paris")

    Args:
        pieces: the text, in the pieces in which a stream hands it out. A single piece is handed out word
            by word; none is an empty answer.
        seconds: how long the model takes before it answers, for a stream before the first piece;
            `math.inf`: it never answers. None: as the model does otherwise.
        piece_seconds: how long it takes between two pieces of a stream. None: as the model does otherwise.
        fields: the other fields of the `Completion`. Reasoning comes ahead of the text of a stream, word
            by word. Without a finish reason it is ``refusal`` where
            there is a refusal, ``tool_calls`` where tools are called, and ``stop`` elsewhere.

    Raises:
        BadCall: a piece is not text, or a time is not a number of seconds, 0 or more.
    """

    def __init__(
        self,
        *pieces: str,
        seconds: float | None = None,
        piece_seconds: float | None = None,
        **fields: Unpack[_CompletionFields],
    ) -> None:
        for piece in pieces:
            if not isinstance(piece, str):
                raise BadCall(f"a piece of a FakeAnswer is {piece!r}; it must be text")
        fields.setdefault("finish_reason", _finish_reason(fields))
        self.completion = Completion(content="".join(pieces), **fields)
        self.pieces = pieces if len(pieces) > 1 else _words(self.completion.content)
        check_seconds("seconds", seconds, endless=True, optional=True)
        check_seconds("piece_seconds", piece_seconds, endless=True, optional=True)
        self.seconds = seconds
        self.piece_seconds = piece_seconds

    @classmethod
    def calling(cls, tool: str, /, **arguments: object) -> FakeAnswer:
        """Make an answer that only calls a tool with these arguments; each call has an id of its own."""
        text = msgspec.json.encode(arguments).decode()
        return cls(tool_calls=(ToolCall(f"call_{next(_NUMBERS)}", tool, text),))

    @classmethod
    def of(cls, answer: str | Completion | FakeAnswer) -> FakeAnswer:
        """Make a `FakeAnswer` of an answer that may be one already."""
        if isinstance(answer, FakeAnswer):
            return answer
        if isinstance(answer, str):
            return cls(answer)
        reply = cls(answer.content)
        reply.completion = answer
        return reply

    @property
    def stream(self) -> tuple[str, ...]:
        """The pieces of a stream: reasoning, then the text."""
        thoughts = reasoning_pieces(self.completion)
        return (*(delta for thought in thoughts for delta in _deltas(thought)), *self.pieces)

    def __repr__(self) -> str:
        shown = [repr(piece) for piece in self.pieces]
        for name in ("seconds", "piece_seconds"):
            value = getattr(self, name)
            if value is not None:
                shown.append(f"{name}={value!r}")
        return f"FakeAnswer({', '.join(shown)})"


ScriptedAnswer: TypeAlias = "str | Completion | FakeAnswer | Exception | type[Exception]"
"""What becomes of one call: its text, a `Completion`, a `FakeAnswer`, or the exception that it raises."""

ScriptFunction: TypeAlias = "Callable[[ModelRequest], ScriptedAnswer | Awaitable[ScriptedAnswer]]"
"""Decides by the request."""

Script: TypeAlias = (
    "ScriptedAnswer | Iterable[ScriptedAnswer] | Mapping[str, ScriptedAnswer] | ScriptFunction"
)
"""What becomes of all calls.

- One answer for all.
- Several: one a call, in order. A list ends; an iterator, such as `itertools.cycle(...)`, need not.
- A mapping from texts to answers: the first text that is part of the prompt decides. The empty text is part
  of every prompt: last, it stands for all others.
- A function of the `ModelRequest`, async or not.
"""


class ScriptReader:
    """Reads the script of the model `name`; None: it answers ``"<name>: <prompt>"``.

    Raises:
        BadCall: the script is something else than a `Script`.
    """

    def __init__(self, name: str, script: Script | None) -> None:
        self._name = name
        self._asked = 0
        self._answer = self._reader(script)

    async def next(self, request: ModelRequest) -> FakeAnswer | Exception | type[Exception]:
        """Return the reply to the next call, or what it is to raise.

        Raises:
            ModelError: the script has no answer for it.
        """
        self._asked += 1
        answer = self._answer(request)
        if isawaitable(answer):
            answer = await answer
        if _is_error(answer):
            return answer
        if not isinstance(answer, (str, Completion, FakeAnswer)):
            raise _own_mistake(_not_an_answer(answer))
        return FakeAnswer.of(answer)

    def _reader(self, script: Script | None) -> Callable[[ModelRequest], object]:
        if script is None:
            return lambda request: f"{self._name}: {request.prompt}"
        if _is_answer(script):
            return lambda _request: script
        if isinstance(script, Mapping):
            _check_all(script.values())
            return self._by_prompt(cast("Mapping[str, ScriptedAnswer]", script))
        if isinstance(script, Iterable):
            if isinstance(script, Sequence):
                _check_all(script)
            return self._in_order(iter(script))
        if callable(script):
            return script
        raise BadCall(
            f"the answers of a FakeModel are {script!r}; they must be a text, a Completion, a FakeAnswer or "
            "an exception, or a list, a mapping or a function that returns such"
        )

    def _in_order(self, answers: Iterator[ScriptedAnswer]) -> Callable[[ModelRequest], object]:
        def answer(_request: ModelRequest) -> object:
            try:
                return next(answers)
            except StopIteration:
                raise _own_mistake(
                    f"FakeModel {self._name!r} has no answer left: this is call {self._asked} that needs "
                    f"one, and there were {self._asked - 1}; use itertools.cycle for answers without end"
                ) from None

        return answer

    def _by_prompt(self, answers: Mapping[str, ScriptedAnswer]) -> Callable[[ModelRequest], object]:
        def answer(request: ModelRequest) -> object:
            for text, found in answers.items():
                if text in request.prompt:
                    return found
            raise _own_mistake(
                f"FakeModel {self._name!r} has no answer for the prompt {request.prompt!r}; it has answers "
                f"for prompts with: {', '.join(map(repr, answers))}"
            )

        return answer


def _finish_reason(fields: _CompletionFields) -> FinishReason:
    if fields.get("refusal") is not None:
        return "refusal"
    return "tool_calls" if fields.get("tool_calls") else "stop"


def to_raise(error: Exception | type[Exception]) -> Exception:
    """Return the exception to raise, without the traceback of the last time that it was."""
    return error() if isinstance(error, type) else error.with_traceback(None)


def _is_error(answer: object) -> TypeGuard[Exception | type[Exception]]:
    return isinstance(answer, Exception) or (isclass(answer) and issubclass(answer, Exception))


def _is_answer(answer: object) -> bool:
    return isinstance(answer, (str, Completion, FakeAnswer)) or _is_error(answer)


def _check_all(answers: Iterable[object]) -> None:
    for answer in answers:
        if not _is_answer(answer):
            raise BadCall(_not_an_answer(answer))


def _not_an_answer(given: object) -> str:
    allowed = "a text, a Completion, a FakeAnswer or an exception"
    return f"an answer of a FakeModel is {given!r}; it must be {allowed}"


def _own_mistake(message: str) -> ModelError:
    """Make the error of a test's own mistake: no retry and no other deployment can mend it."""
    return ModelError(message, kind="bad_request", retryable=False)


def _deltas(thought: ReasoningPart) -> list[ReasoningDelta]:
    *words, last = _words(thought.text) or ("",)
    ahead = [ReasoningDelta(word, thought.provider) for word in words]
    return [*ahead, ReasoningDelta.of(replace(thought, text=last))]


def _words(text: str) -> tuple[str, ...]:
    """Split a text after the white space that follows each word."""
    return tuple(re.findall(r"\s*\S+\s*|\s+", text))
