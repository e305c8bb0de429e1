"""Observers are told of runs and calls, and can harm neither."""

from __future__ import annotations

from contextvars import Context, ContextVar
from typing import Any

import pytest
from structlog.testing import capture_logs

from helpers.event_loops import on_every_loop
from ultra import BadCall, Completion, MultiLLMOrchestrator, RetryPolicy
from ultra.messages.observers import CallOutcome, CallStart, RunOutcome, RunStart
from ultra.testing import FakeModel

VARIABLE: ContextVar[str] = ContextVar("variable", default="nobody")


class Recorder:
    """Keeps all that it is told, and sets a variable for each run."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def run_started(self, run: RunStart, context: Context) -> Any:
        self.told.append(run)
        context.run(VARIABLE.set, run.run_id)
        return self.told.append

    def call_started(self, call: CallStart, context: Context) -> Any:
        assert context[VARIABLE] == call.run_id
        self.told.append(call)
        return self.told.append


class Broken:
    """Raises wherever it can. `late`: only at the end."""

    def __init__(self, *, late: bool, error: type[BaseException]) -> None:
        self.late = late
        self.error = error

    def run_started(self, run: RunStart, context: Context) -> Any:
        return self._fail(run)

    def call_started(self, call: CallStart, context: Context) -> Any:
        return self._fail(call)

    def received(self, headers: object) -> Any:
        return self._fail(headers)

    def _fail(self, _: object) -> Any:
        if not self.late:
            raise self.error("of the observer")
        self.late = False
        return self._fail


@on_every_loop
async def test_an_observer_is_told_of_a_run_its_calls_and_their_ends() -> None:
    recorder = Recorder()
    seen: list[str] = []

    async def client(prompt: str) -> Completion:
        seen.append(VARIABLE.get())
        return Completion("Paris.")

    orchestrator = MultiLLMOrchestrator(telemetry=recorder, stages=["initial"])
    orchestrator.register_model("m", client)
    orchestrator.add_ensemble("council", models=["m"])
    result = await orchestrator.ensemble("council").process_responses("Q")

    run, call, answered, ended = recorder.told
    assert isinstance(run, RunStart)
    assert (run.run_id, run.name, run.strategy, run.models) == (
        result.run_id,
        "council",
        "synthesize",
        ("m",),
    )
    assert isinstance(call, CallStart)
    assert (call.run_id, call.stage, call.model_name) == (result.run_id, "initial", "m")
    assert isinstance(answered, CallOutcome)
    assert (answered.status, answered.attempts) == ("success", 1)
    assert isinstance(ended, RunOutcome)
    assert (ended.status, ended.result) == ("success", result)
    assert seen == [result.run_id]
    assert VARIABLE.get() == "nobody"


@pytest.mark.parametrize("late", [False, True], ids=["at the beginning", "at the end"])
@pytest.mark.parametrize("error", [ValueError, SystemExit])
async def test_what_an_observer_raises_harms_no_run_and_no_other_observer(
    error: type[BaseException], *, late: bool
) -> None:
    recorder = Recorder()
    broken = Broken(late=late, error=error)
    orchestrator = MultiLLMOrchestrator(telemetry=[broken, recorder], stages=["initial"])
    orchestrator.register_model("m", FakeModel("Paris."))
    with capture_logs() as lines:
        result = await orchestrator.process_responses("Q")
        with orchestrator.observers.received({"traceparent": "x"}):
            pass
    assert result.status == "success"
    assert len(recorder.told) == 4
    failures = [line for line in lines if line["event"] == "observer failed"]
    assert failures
    assert all(line["observer"] == "Broken" for line in failures)


@pytest.mark.parametrize("given", ["prometheus", object(), Recorder, 3, [Recorder(), None]])
def test_telemetry_that_is_no_observer_is_refused(given: Any) -> None:
    with pytest.raises(BadCall, match="give 'otel', or an object with run_started"):
        MultiLLMOrchestrator(telemetry=given)


async def test_a_subclass_with_fewer_arguments_can_still_have_ensembles() -> None:
    class Narrow(MultiLLMOrchestrator):
        async def process_responses(self, prompt: Any, stages: Any = None, models: Any = None) -> Any:  # type: ignore[override]
            return await super().process_responses(prompt, stages, models)

    orchestrator = Narrow(stages=["initial"], retry=RetryPolicy(max_retries=0))
    orchestrator.register_model("m", FakeModel("Paris."))
    orchestrator.add_ensemble("one", models=["m"])
    assert (await orchestrator.ensemble("one").process_responses("Q")).status == "success"
