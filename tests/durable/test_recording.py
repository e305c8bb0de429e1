"""Runs that were not submitted, collected and written when they have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helpers.run_events import assert_well_formed, orchestrator_of
from ultra.durable.execution import read_all
from ultra.durable.recording import RunRecording
from ultra.errors import ModelError, QuorumNotReached
from ultra.messages.chat import ReasoningPart
from ultra.messages.events import Chunk, ReasoningChunk
from ultra.orchestrator.replay import replay_run
from ultra.orchestrator.submitted_runs import record_runs
from ultra.stores.journal_memory import MemoryJournal
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from ultra import MultiLLMOrchestrator
    from ultra.actors.coordinator.messages import AnswerMemo
    from ultra.messages.runs import RunSpec


class Recorder:
    """Collects the last run of an orchestrator."""

    def __init__(self, orchestrator: MultiLLMOrchestrator) -> None:
        self.journal = MemoryJournal()
        record_runs(orchestrator, self._begin)

    def _begin(self, run_id: str, spec: RunSpec) -> AnswerMemo:
        self.recording = RunRecording(run_id, spec, tags={"by": "test"}, now=lambda: 100.0)
        return self.recording.memo

    async def ask(self, orchestrator: MultiLLMOrchestrator, *, until: int | None = None) -> None:
        """Ask, and leave the run after so many events."""
        async with orchestrator.stream_responses("Capital of France?", ["initial", "synthesis"]) as run:
            async for event in run:
                self.recording.take(event)
                if event.seq == until:
                    break
            else:
                await run.result()


async def test_a_run_is_kept_with_each_text_once_and_can_be_replayed_without_a_model() -> None:
    models = FakeModel(FakeAnswer("Par", "is."), name="a"), FakeModel(FakeAnswer("Ly", "on."), name="b")
    orchestrator = orchestrator_of(*models)
    recorder = Recorder(orchestrator)
    await recorder.ask(orchestrator)
    await recorder.recording.write(recorder.journal)

    (record,) = await recorder.journal.list_runs()
    assert (record.state, record.created, record.spec.models) == ("completed", 100.0, ("a", "b"))
    events = await read_all(recorder.journal, record.run_id)
    assert_well_formed(events)
    texts = [event for event in events if isinstance(event, Chunk)]
    assert len(texts) == len({(event.stage, event.model_name) for event in texts})
    before = [len(model.calls) for model in models]
    result = await replay_run(recorder.journal, record.run_id, strategy="best_of")
    assert result.strategy == "best_of"
    assert not result.failures
    assert [len(model.calls) for model in models] == before


async def test_a_run_that_was_left_is_kept_as_cancelled() -> None:
    orchestrator = orchestrator_of(FakeModel("Paris.", name="a"), FakeModel(name="b", gated=True))
    recorder = Recorder(orchestrator)
    await recorder.ask(orchestrator, until=1)
    await recorder.recording.write(recorder.journal)

    (record,) = await recorder.journal.list_runs()
    assert (record.state, record.code) == ("cancelled", "RunCancelled")
    assert_well_formed(await read_all(recorder.journal, record.run_id))


async def test_a_run_that_failed_is_kept_with_its_error() -> None:
    orchestrator = orchestrator_of(FakeModel(ModelError("no", kind="auth"), name="a"))
    recorder = Recorder(orchestrator)
    with pytest.raises(QuorumNotReached):
        await recorder.ask(orchestrator)
    await recorder.recording.write(recorder.journal)

    (record,) = await recorder.journal.list_runs()
    assert (record.state, record.code) == ("failed", "QuorumNotReached")


async def test_a_strategy_that_is_no_value_is_kept_by_its_name() -> None:
    class Own:
        async def run(self, context: object) -> object:
            raise NotImplementedError

    orchestrator = orchestrator_of(FakeModel("Paris.", name="a"))
    recorder = Recorder(orchestrator)
    orchestrator.stream_responses("?", strategy=Own())  # type: ignore[arg-type]
    assert recorder.recording.record.spec.strategy.name.endswith("Own")


async def test_reasoning_is_kept_block_by_block_and_without_what_is_void() -> None:
    part = ReasoningPart("One and one.", "anthropic", signature="s")
    pieces = [ReasoningPart("One ", "anthropic"), ReasoningPart("and one.", "anthropic", signature="s")]
    model = FakeModel(FakeAnswer("Par", "is.", reasoning_parts=tuple(pieces), piece_seconds=0.001), name="a")
    model.fail(after_pieces=1)
    orchestrator = orchestrator_of(model)
    recorder = Recorder(orchestrator)
    await recorder.ask(orchestrator)
    await recorder.recording.write(recorder.journal)

    (record,) = await recorder.journal.list_runs()
    events = await read_all(recorder.journal, record.run_id)
    assert_well_formed(events)
    thoughts = [event for event in events if isinstance(event, ReasoningChunk) and event.stage == "initial"]
    assert [(event.text, event.restart) for event in thoughts] == [("One ", False), ("One and one.", True)]
    assert thoughts[-1].part == part
