"""The model actor and what was kept of a run's answers: it is asked first, and whoever asks may leave."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.model_actors import REQUESTS, Asker, answer, ask_for, assert_all_accounted, register, start
from ultra.actors.model.messages import Generate, LocalRequest
from ultra.errors import JournalUnavailable
from ultra.messages.results import ModelResponse
from ultra.supervisor import ActorSystem
from ultra.testing import FakeModel


class Slot:
    """Has nothing, and takes a while to find that out."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.error = error
        self.answers: list[ModelResponse] = []
        self._seconds = seconds

    async def kept(self) -> ModelResponse | None:
        await trio.sleep(self._seconds)
        if self.error is not None:
            raise self.error
        return None

    async def keep(self, response: ModelResponse) -> None:
        await trio.lowlevel.checkpoint()
        self.answers.append(response)


def ask_with(slot: Slot) -> Generate:
    message = ask_for()
    REQUESTS.add(message.id, LocalRequest(slot=slot))
    return message


async def test_what_is_not_kept_is_asked_for_and_kept() -> None:
    slot, fake = Slot(), FakeModel("A")
    response = await answer(register(fake), ask_with(slot))
    assert (response.content, slot.answers, len(fake.calls)) == ("A", [response], 1)


async def test_an_asker_that_leaves_while_the_slot_is_read_causes_no_call(autojump_clock: MockClock) -> None:
    del autojump_clock
    slot, fake = Slot(seconds=5), FakeModel("A")
    model = register(fake)
    async with ActorSystem() as system:
        ref = start(system, model)
        async with trio.open_nursery() as nursery:
            asker = Asker(nursery, ref, ask_with(slot))
            await trio.sleep(1)
            asker.scope.cancel()
        await wait_all_tasks_blocked()
        assert ref.snapshot().in_flight == 0  # nor is anything read on
        await trio.sleep(10)
    assert (fake.calls, slot.answers) == ([], [])
    metrics = model.metrics.snapshot()
    assert (metrics.cancelled, metrics.attempts) == (1, 0)
    assert_all_accounted(metrics)


async def test_a_slot_that_cannot_be_read_fails_the_request_and_not_the_actor() -> None:
    slot = Slot(error=JournalUnavailable("runs.db", OSError("locked")))
    fake = FakeModel("A")
    model = register(fake)
    async with ActorSystem() as system:
        ref = start(system, model)
        with pytest.raises(JournalUnavailable, match="locked"):
            await ref.ask(ask_with(slot))
        assert ref.snapshot().restarts == 0
        assert (await ref.ask(ask_for())).content == "A"
    metrics = model.metrics.snapshot()
    assert (metrics.failures, metrics.successes) == (1, 1)
    assert_all_accounted(metrics)
