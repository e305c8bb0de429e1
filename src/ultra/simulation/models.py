"""Models that take virtual seconds, fail now and then, and remember what they were asked and said."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

import trio

from ultra.errors import ErrorKind, ModelError
from ultra.simulation.record import TIME_ERROR

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ultra.simulation.record import Record

__all__ = ["CALLS_AT_ONCE", "FRESH", "VirtualModel"]

CALLS_AT_ONCE: Final = 2
"""How many calls each model is registered to take at once."""

FRESH: Final = "fresh"
"""A word of questions that are asked without the cache, so that equal requests share nothing."""

WORDS: Final = ("north", "south", "east", "west", "up", "down", "left", "right")
FAILURES: Final[tuple[ErrorKind, ...]] = ("server", "overloaded", "rate_limit", "connection", "auth")


class VirtualModel:
    """A client with `generate` and `stream`. `name` is what it is registered as, and `life` which time.

    Attributes:
        said: every answer that it began to give, and the prompt that it was for.
        asked: how many calls each prompt has led to.
        open_calls: those that have not ended, by number, with the prompt and the time of each.
    """

    def __init__(self, name: str, life: int, seed: int, record: Record) -> None:
        self.name = name
        self.said: dict[str, str] = {}
        self.asked: dict[str, int] = {}
        self.open_calls: dict[int, tuple[str, str | None]] = {}
        self._life = life
        self._record = record
        self._random = Random(f"{seed}/{name}/{life}")
        self._calls = 0
        self._shared: dict[int, tuple[int, float]] = {}  # calls that began beside an equal one, and when
        self._failing = self._random.choice((0.0, 0.1, 0.3))
        self._pace = self._random.choice((0.0, 0.25, 0.5, 1.0))

    async def generate(self, prompt: str, *, system: str | None = None) -> str:
        """Answer after some time, or fail."""
        with _Call(self, prompt, system) as number:
            await trio.sleep(self._pace * (1 + number % 3))
            self._may_fail()
            return self._say(number, prompt)

    async def stream(self, prompt: str, *, system: str | None = None) -> AsyncGenerator[str]:
        """Answer word by word; a stream may break off in the middle."""
        with _Call(self, prompt, system) as number:
            await trio.sleep(self._pace)
            words = self._say(number, prompt).split(" ")
            for word in words[:-1]:
                yield f"{word} "
                if number % 4 == 0:
                    await trio.sleep(0.25)
                self._may_fail(share=1 / len(words))
            yield words[-1]

    def began(self, prompt: str, system: str | None) -> int:
        """Take note of a call; returns its number."""
        self._calls += 1
        number = self._calls
        if FRESH not in prompt:
            for other, asked in self.open_calls.items():
                if asked == (prompt, system):
                    self._shared[number] = (other, trio.current_time())
        self.open_calls[number] = (prompt, system)
        self.asked[prompt] = self.asked.get(prompt, 0) + 1
        self._record.add("call", self.name, self._life, number)
        self._record.check(
            3,
            len(self.open_calls) <= CALLS_AT_ONCE,
            f"{self.name} has {len(self.open_calls)} calls at once; allowed are {CALLS_AT_ONCE}",
            self.name,
        )
        return number

    def ended(self, number: int, how: str) -> None:
        """Take note of the end of a call.

        Of two equal ones, the older one may have been left by all who wanted it: it ends at once then.
        """
        del self.open_calls[number]
        self._record.add("called", self.name, self._life, number, how)
        now = trio.current_time()
        for younger, (older, since) in tuple(self._shared.items()):
            if number in {younger, older}:
                del self._shared[younger]
                self._record.check(
                    3,
                    now - since <= TIME_ERROR,
                    f"{self.name} had two calls for one question for {now - since:.3f} s",
                    self.name,
                )

    def _say(self, number: int, prompt: str) -> str:
        # Mostly the same words, so that models agree and differ.
        answer = " ".join((f"{self.name}.{self._life}.{number}:", *self._random.choices(WORDS, k=6)))
        self.said[answer] = prompt
        return answer

    def _may_fail(self, share: float = 1.0) -> None:
        if self._random.random() < self._failing * share:
            raise ModelError("made up", provider=self.name, kind=self._random.choice(FAILURES))


class _Call:
    """One call, from its beginning to its end."""

    __slots__ = ("_model", "_number")

    def __init__(self, model: VirtualModel, prompt: str, system: str | None) -> None:
        self._model = model
        self._number = model.began(prompt, system)

    def __enter__(self) -> int:
        return self._number

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._model.ended(self._number, kind.__name__ if kind is not None else "")
