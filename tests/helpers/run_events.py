"""Events of a run: what a reader makes of them, and what must be true of all of them."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from ultra import (
    MultiLLMOrchestrator,
    OrchestrationResult,
    RetryPolicy,
)
from ultra.messages.events import (
    Chunk,
    Event,
    ModelResponded,
    ModelRetrying,
    ReasoningChunk,
    RunCompleted,
    RunFailed,
)
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from ultra.orchestrator.streams import RunStream

LAST = (RunCompleted, RunFailed)
AT_ONCE = RetryPolicy(max_retries=2, initial=0, maximum=0)


def orchestrator_of(*clients: FakeModel, **settings: Any) -> MultiLLMOrchestrator:
    settings.setdefault("retry", AT_ONCE)
    orchestrator = MultiLLMOrchestrator(random=Random(1), **settings)
    for weight, client in enumerate(reversed(clients)):
        orchestrator.register_model(client.name, client, weight=weight)
    return orchestrator


async def read_all(run: RunStream) -> list[Event]:
    return [event async for event in run]


def text_of(events: list[Event], stage: str, model: str, *, number: int = 0, sample: int = 0) -> str:
    """What a reader has on the screen for one answer at the end; `number` is its step's round."""
    text, answer = "", (stage, number, model, sample)
    for event in events:
        if isinstance(event, Chunk) and _answer(event) == answer:
            text = event.text if event.restart else text + event.text
    return text


def thoughts_of(events: list[Event], stage: str, model: str) -> str:
    """What a reader has of the reasoning of one answer at the end."""
    thoughts = ""
    for event in events:
        if isinstance(event, ReasoningChunk) and (event.stage, event.model_name) == (stage, model):
            thoughts = event.text if event.restart else thoughts + event.text
        elif isinstance(event, ModelRetrying) and (event.stage, event.model_name) == (stage, model):
            thoughts = ""
    return thoughts


def _answer(event: Chunk | ModelResponded) -> tuple[str, int, str, int]:
    return event.stage, event.round, event.model_name, event.sample


def assert_well_formed(events: list[Event]) -> None:
    assert [event.seq for event in events] == list(range(len(events)))
    assert [isinstance(event, LAST) for event in events] == [False] * (len(events) - 1) + [True]
    assert len({event.run_id for event in events}) == 1
    for event in events:
        if isinstance(event, ModelResponded):
            so_far = events[: event.seq]
            stage, number, model, sample = _answer(event)
            assert text_of(so_far, stage, model, number=number, sample=sample) == event.response.content


def words(result: OrchestrationResult) -> Any:
    return {
        stage: {name: response.content for name, response in answers.items()}
        for stage, answers in result.stages.items()
    }
