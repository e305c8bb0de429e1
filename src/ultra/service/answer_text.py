"""The text of a run's answer, as its events tell it, and what its writer thinks ahead of it.

Both come in versions, since a later one may replace the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from ultra.messages.chat import ReasoningPart
from ultra.messages.events import Chunk, ReasoningChunk, StageStarted, call_of
from ultra.messages.reasoning import ends_block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.messages.events import CallKey, Event

__all__ = ["ANSWER_STEPS", "MOST_AT_ONCE", "AnswerText", "missing", "portions"]

ANSWER_STEPS: Final = frozenset({"synthesis", "answer"})
"""The steps whose text is the answer of the run as soon as it is written."""

_TOOLS: Final = "tools"
"""The step in which models may call tools. Of a run that asks one model, its text is the answer, too."""

_STEPS_OF_ONE: Final = ANSWER_STEPS | {_TOOLS}

MOST_AT_ONCE: Final = 2**16
"""Characters that a reader gets at once: as much waits for each that takes nothing."""


def portions(text: str, begin: int = 0) -> Iterator[str]:
    """Yield a text, from `begin` on, in parts that are sent one by one: no reader has a copy of the whole."""
    return (text[start : start + MOST_AT_ONCE] for start in range(begin, len(text), MOST_AT_ONCE))


class AnswerText:
    """Collects the text, and the reasoning.

    Args:
        holds: whether the answer is told once it is whole, and no text of it before.
        is_single: whether the run asks one model, and no ensemble.
        with_reasoning: whether the reasoning is told; it is not collected otherwise.

    Attributes:
        versions: the pieces of each version of the answer; a later one is written after a failure.
        thoughts: likewise, of the reasoning.
        asked: the models of the newest step.
    """

    def __init__(self, *, holds: bool, is_single: bool = False, with_reasoning: bool = False) -> None:
        self.versions: list[list[str]] = [[]]
        self.thoughts: list[list[ReasoningPart]] = [[]]
        self.asked: tuple[str, ...] = ()
        self._holds = holds
        self._steps = _STEPS_OF_ONE if is_single else ANSWER_STEPS
        self._tells_it = with_reasoning
        self._writer: CallKey | None = None
        self._thinker: CallKey | None = None
        self._one_writes = False  # where several write at once, none of their texts is the answer yet

    def take(self, event: Event) -> bool:
        """Note what an event tells; return whether there is more than before."""
        match event:
            case Chunk() if event.stage in self._steps and self._one_writes and not self._holds:
                return self._add(event)
            case ReasoningChunk() if event.stage in self._steps and self._one_writes and self._tells_it:
                return self._add_reasoning(event)
            case StageStarted():
                self.asked = event.models
                if event.stage in self._steps:
                    self._one_writes = event.asks == "first" or len(event.models) == 1
            case _:
                pass
        return False

    def _add(self, chunk: Chunk) -> bool:
        writer = call_of(chunk)
        if self.versions[-1] and (chunk.restart or self._writer != writer):
            if self._repeats(writer, chunk.text):
                return False
            self.versions.append([])
        self._writer = writer
        if not chunk.text:
            return False
        if self.thoughts[-1] and self._thinker != writer:
            self.thoughts.append([])  # of a writer that failed before it wrote
        if len(chunk.text) <= MOST_AT_ONCE:
            self.versions[-1].append(chunk.text)
        else:
            self.versions[-1] += portions(chunk.text)
        return True

    def _repeats(self, writer: CallKey, text: str) -> bool:
        """Return whether a text is that of the step before it: an answer with tools, which called none."""
        before = self._writer
        kept = before is not None and before[0] == _TOOLS and before[2:] == writer[2:]
        return kept and text == "".join(self.versions[-1])

    def _add_reasoning(self, chunk: ReasoningChunk) -> bool:
        thinker = call_of(chunk)
        if self.thoughts[-1] and (chunk.restart or self._thinker != thinker):
            self.thoughts.append([])
        self._thinker = thinker
        if not chunk.text and not ends_block(chunk.part):
            return False
        *ahead, last = [*portions(chunk.text)] or [""]
        provider = chunk.part.provider
        self.thoughts[-1] += [ReasoningPart(text, provider) for text in ahead]
        self.thoughts[-1].append(replace(chunk.part, text=last))
        return True


def missing(said: str, whole: str) -> Iterator[str] | None:
    """Return the parts of the `whole` answer that are missing behind what was said; None: that is none of it.

    Space around a text may be taken off it once it is whole.
    """
    begin = len(whole) - len(whole.lstrip())
    said = said.lstrip()
    if whole.startswith(said, begin):
        return portions(whole, begin + len(said))
    return portions("") if said.rstrip() == whole.strip() else None
