"""Asking several models at once, until the answers are enough or the time is over."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Self

import trio

from ultra.actors.coordinator.tool_turn import readable
from ultra.actors.runtime.ask_group import AskGroup
from ultra.errors import AllAttemptsFailed, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from ultra._support.reminders import Reminder
    from ultra.actors.coordinator.output_check import OutputCheck
    from ultra.actors.coordinator.run import Run
    from ultra.actors.coordinator.steps import Call, OpenStep
    from ultra.actors.runtime.ask_group import AskResult
    from ultra.messages.results import ModelResponse
    from ultra.strategies.base import Model, Write

__all__ = ["Gathering", "numbers_of"]


class Gathering:
    """The requests of one `RunContext.ask_all`; leaving the block cancels those that go on.

    `write` says what is asked. `needed` models have to answer; then the grace for the others begins, and
    `until` says of the answers so far whether they are enough. `deadline` is a `trio.current_time`.
    """

    def __init__(  # noqa: PLR0917 - all that `ask_all` has
        self,
        run: Run,
        step: OpenStep,
        write: Write,
        needed: int,
        until: Callable[[Sequence[ModelResponse]], bool] | None,
        deadline: float,
    ) -> None:
        self._run = run
        self._step = step
        self._write = write
        self._deadline = deadline
        self._needed = needed
        self._until = until
        self._group: AskGroup[Call, ModelResponse] = AskGroup()
        self._calls: list[Call] = []
        self._responses: list[ModelResponse] = []
        self._is_late = False
        self._alarm: Reminder | None = None
        self._set_alarm(deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._group.close()
        for call in self._calls:
            self._run.forget(call)

    def _set_alarm(self, deadline: float) -> None:
        """Let the waiting end at this time."""
        if self._alarm is not None:
            self._alarm.cancel()
        if deadline < inf:
            self._alarm = self._run.reminders.add(deadline, self._be_late)

    def _be_late(self) -> None:
        self._is_late = True
        self._group.wake()

    @property
    def answered(self) -> int:
        """How many models have answered to the end."""
        return len({response.model_name for response in self._responses if response.is_whole})

    def answers(self) -> list[ModelResponse]:
        """Return the whole answers so far, by weight, then by sample."""
        return self._run.by_weight([response for response in self._responses if response.is_whole])

    def cut(self) -> list[ModelResponse]:
        """Return the answers that were cut off, in the same order."""
        return self._run.by_weight([response for response in self._responses if not response.is_whole])

    def ask(self, model: Model, sample: int) -> None:
        """Send the request to one model; a prompt that does not fit it is told as its failure."""
        request = self._run.written(self._step, model, self._write, sample)
        if request is None:
            return
        kept = self._run.kept(self._step, model, request)
        if kept is None:
            self._send(model, self._run.check(request))
        else:
            self._responses.append(kept)

    def _send(self, model: Model, check: OutputCheck) -> None:
        call = self._run.call(self._step, model, check, self._deadline)
        self._calls.append(call)
        self._group.ask(call.target.ref, call.message, call)

    async def gather(self) -> None:
        """Wait until all have answered, the answers are enough, or the time or the grace is over."""
        grace, waits_for_stragglers, enough = self._run.options.grace, False, False
        while True:
            if self._responses and self.answered >= self._needed:
                enough = self._until is not None and self._until(self.answers())
                if grace is not None and not waits_for_stragglers:
                    waits_for_stragglers = True
                    self._set_alarm(min(self._deadline, trio.current_time() + grace))
            if enough or self._is_late or not len(self._group):
                break
            await self._group.arrival()
            self._take_arrived()  # equal calls end together: one wake-up for all of them
        unanswered = self._group.unanswered
        for call in () if enough else unanswered:
            call.local.deadline = -inf  # so the model knows that it was late, be it only for the grace
        self._group.close()
        for call in unanswered:
            if enough:
                self._run.accounts.pay(call.spent.cost)  # it is needless, which is no failure
                continue
            error = call.too_late(self._run.seconds, grace if waits_for_stragglers else None)
            self._run.failed(self._step, call, error)

    def _take_arrived(self) -> None:
        for reply in self._group.arrived():
            self._take(reply)

    def _take(self, reply: AskResult[Call, ModelResponse]) -> None:
        call, error = reply.key, reply.error
        if reply.value is not None:
            try:
                answer = self._run.read(call, readable(call, reply.value))
            except (AllAttemptsFailed, ModelError) as failure:
                error = failure
            else:
                if answer is None:
                    self._send(call.model, call.check)
                else:
                    self._responses.append(self._run.answered(self._step, answer))
                return
        if error is not None:
            sample = call.message.request.sample
            shorter = self._run.shortened(self._step, call.model, self._write, sample, error)
            if shorter is not None:
                call.check.restart(shorter)
                self._send(call.model, call.check)
                return
            self._run.failed(self._step, call, error)


def numbers_of(samples: int | Mapping[str, Sequence[int]] | None, usual: int, model: str) -> Sequence[int]:
    """Return the numbers of the samples that a model gives; see `RunContext.ask_all`."""
    if samples is None or isinstance(samples, int):
        return range(usual if samples is None else samples)
    return samples.get(model, ())
