"""The events of a kept run in the protocol of responses: of equal events equal ones, with equal numbers.

So a client that comes back, to whatever process, gets the rest of what it had begun to read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ultra.errors import RunCancelled, SubmittedRunFailed
from ultra.messages.events import RunCompleted, RunFailed
from ultra.service.answer_text import AnswerText, missing, portions
from ultra.service.ledger import Ledger
from ultra.service.problems import no_answer, problem_of
from ultra.service.refusals import Refused, refused_by_all
from ultra.service.responses.events import ResponseEvents
from ultra.service.responses.items import ended, failed, response_object, whole_output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.messages.events import Event
    from ultra.messages.results import ModelResponse, OrchestrationResult
    from ultra.service.responses.shape import ResponseShape
    from ultra.stores.journal_contract import RunRecord

__all__ = ["KeptResponse", "Projection", "response_of"]


class KeptResponse(Struct):
    """The run of a kept response; see `RunOfResponse`."""

    run_id: str
    created: int
    is_kept: bool = True
    refused: Refused | None = None

    @classmethod
    def of(cls, run: RunRecord) -> KeptResponse:
        """Return that of a record."""
        return cls(run.run_id, int(run.tags.get("created", run.created)))


class Projection:
    """Makes the events of a response out of those of its run, one after the other, from the first.

    Args:
        shape: how the response is told.
        run: the run, as it is when the projection begins.
        after: the number of the last event that the reader has; it gets those behind it.

    Attributes:
        response: the whole response, once the run has ended.
    """

    def __init__(self, shape: ResponseShape, run: RunRecord, after: int = -1) -> None:
        self.response: dict[str, Any] | None = None
        self._shape = shape
        self._run = KeptResponse.of(run)
        self._writer = ResponseEvents(shape, self._run, after=after)
        self._text = AnswerText(
            holds=shape.holds_text, is_single=shape.is_single, with_reasoning=shape.tells_reasoning
        )
        self._strategy = run.spec.strategy.name
        self._version = 0
        self._pieces = 0
        self._reasoning = (0, 0)  # version and pieces, likewise
        self._said: list[str] = []
        self._ledger = Ledger()
        self._has_started = not shape.background

    def begin(self) -> bytes:
        """Return what is told before the run is under way."""
        return self._writer.queue() if self._shape.background else self._writer.begin()

    def take(self, event: Event, ended_at: float | None = None) -> Iterator[bytes]:
        """Yield what an event comes to; `ended_at` is when the run ended, for its last event."""
        if not self._has_started:
            self._has_started = True
            yield self._writer.start()
        self._ledger.take(event)
        if self._text.take(event):
            yield from self._more()
        match event:
            case RunCompleted():
                yield from self._complete(event.result, ended_at)
            case RunFailed():
                yield from self._fail(event, ended_at)
            case _:
                pass

    def _more(self) -> Iterator[bytes]:
        yield self._think()
        newest = len(self._text.versions) - 1
        if self._version != newest:
            self._version, self._pieces = newest, 0
            yield from self._void()
        pieces = self._text.versions[newest]
        while self._pieces < len(pieces):
            self._pieces += 1
            yield from self._say(pieces[self._pieces - 1])

    def _think(self) -> bytes:
        version, count = self._reasoning
        newest = len(self._text.thoughts) - 1
        begins = version != newest
        pieces = self._text.thoughts[newest]
        self._reasoning = newest, len(pieces)
        return self._writer.reasoning(pieces[0 if begins else count :], begins=begins)

    def _say(self, text: str) -> Iterator[bytes]:
        self._said.append(text)
        yield self._writer.text(text)

    def _void(self) -> Iterator[bytes]:
        if self._said:
            self._said.clear()
            yield self._writer.renew()

    def _complete(self, result: OrchestrationResult, at: float | None) -> Iterator[bytes]:
        answer = result.final_synthesis
        if answer is None:
            problem = no_answer(paid=self._ledger.paid)
            self.response = failed(self._shape, self._run, problem, [])
            yield self._writer.failure(problem)
            return
        rest = missing("".join(self._said), answer.content)
        if rest is None:
            yield from self._void()
            rest = portions(answer.content)
        if not self._said:
            yield self._writer.untold_reasoning(answer)
        for portion in rest:
            yield from self._say(portion)
        self.response = self._whole(result, answer, at)
        yield from self._writer.end(result, answer, at=at)

    def _whole(self, result: OrchestrationResult, answer: ModelResponse, at: float | None) -> dict[str, Any]:
        shape, run = self._shape, self._run
        output = whole_output(shape, run, result, answer, number=self._writer.renewals)
        return ended(shape, run, result, answer, output, at=at)

    def _fail(self, event: RunFailed, at: float | None) -> Iterator[bytes]:
        shape, ledger = self._shape, self._ledger
        if event.error == RunCancelled.__name__:
            self.response = response_object(shape, self._run, status="cancelled")
            yield self._writer.cancelled()
            return
        error = SubmittedRunFailed(self._run.run_id, event.error, event.message)
        refused = self._run.refused = refused_by_all(error, ledger, self._text.asked)
        if refused is not None:
            yield from self._refuse(refused, at)
            return
        problem = problem_of(error, ledger.failures, paid=ledger.paid, single=shape.is_single)
        self.response = failed(shape, self._run, problem, [])
        yield self._writer.failure(problem)

    def _refuse(self, refused: Refused, at: float | None) -> Iterator[bytes]:
        result, answer = refused.settled(self._run.run_id, self._ledger, self._strategy)
        rest = "" if self._said else answer.content  # a refusal is no whole answer
        for portion in portions(rest):
            yield from self._say(portion)
        self.response = self._whole(result, answer, at)
        yield from self._writer.end(result, answer, at=at)


def response_of(run: RunRecord, shape: ResponseShape) -> dict[str, Any]:
    """Return the response of a run that has not ended."""
    status = "queued" if run.state == "queued" else "in_progress"
    return response_object(shape, KeptResponse.of(run), status=status)
