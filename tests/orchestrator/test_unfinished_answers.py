"""Answers that are not whole: not kept, not in the quorum, not read, and told where they stand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from helpers.byte_server import events, fixed, serve
from ultra import MultiLLMOrchestrator, QuorumNotReached
from ultra.clients import connect
from ultra.messages.results import Completion
from ultra.strategies import Synthesize
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    import trio

ODD = FakeAnswer("Half of", finish_reason="other")
CUT = FakeAnswer("The first of", finish_reason="length")
JSON, EVENTS = [("content-type", "application/json")], [("content-type", "text/event-stream")]


def orchestrator_of(*clients: object, **settings: Any) -> MultiLLMOrchestrator:
    orchestrator = MultiLLMOrchestrator(max_retries=0, **settings)
    for name, client in zip("abc", clients, strict=False):
        orchestrator.register_model(name, client)
    return orchestrator


async def ask_twice(orchestrator: MultiLLMOrchestrator, *, stream: bool = False) -> int:
    """How often the client was called for two equal questions."""
    async with orchestrator:
        for _ in range(2):
            if stream:
                async with orchestrator.stream_responses("Q", stages=["initial"]) as run:
                    await run.result()
            else:
                await orchestrator.get_model_response("a", "Q")
    return orchestrator.get_metrics()["a"].attempts


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        ("4", 1),
        (Completion(content="4"), 1),
        (Completion(content="4", finish_reason="stop"), 1),
        (Completion(content="4", finish_reason="STOP"), 1),  # type: ignore[arg-type]
        (Completion(content="4", finish_reason="tool_calls"), 1),
        (Completion(content="4", finish_reason="something_new"), 2),  # type: ignore[arg-type]
        (Completion(content="4", finish_reason="pause_turn"), 2),  # type: ignore[arg-type]
        (Completion(content="4", finish_reason="length"), 2),
    ],
)
async def test_an_answer_is_kept_if_the_model_was_done_or_the_client_never_says_so(
    answer: Any, calls: int
) -> None:
    async def client(prompt: str) -> Any:
        return answer

    assert await ask_twice(orchestrator_of(client)) == calls


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("reason", "calls"), [("stop", 1), ("something_new", 2), (None, 2)])
async def test_an_api_that_does_not_say_that_its_model_was_done_is_asked_again(
    nursery: trio.Nursery, reason: str | None, calls: int, *, stream: bool
) -> None:
    whole = {"choices": [{"message": {"content": "4"}, "finish_reason": reason}]}
    chunk = {"choices": [{"delta": {"content": "4"}, "finish_reason": reason}]}
    plain = fixed(200, JSON, json.dumps(whole).encode())
    answer = fixed(200, EVENTS, events(chunk, "[DONE]")) if stream else plain
    server = await serve(nursery, answer)
    client = connect("openai:m", api_key="any", base_url=f"{server.url}/v1")
    assert await ask_twice(orchestrator_of(client), stream=stream) == calls


async def test_an_answer_that_ended_for_an_unknown_reason_is_not_in_the_quorum_and_nobody_reads_it() -> None:
    good = FakeModel("whole", name="b")
    result = await orchestrator_of(FakeModel(ODD, name="a"), good).process_responses("Q")
    assert result.status == "degraded"
    assert "the answers of 'a' ended before they were done and do not count" in result.notices[0]
    assert all("Half of" not in prompt for prompt in good.prompts)
    with pytest.raises(QuorumNotReached):
        await orchestrator_of(FakeModel(ODD), good, quorum="all").process_responses("Q")


async def test_a_lone_answer_that_ended_for_an_unknown_reason_stands_and_is_told() -> None:
    result = await orchestrator_of(FakeModel(ODD)).process_responses("Q", stages=["initial", "synthesis"])
    assert (str(result.final_synthesis), result.status) == ("Half of", "degraded")
    assert result.notices[-1] == (
        "the answer of 'a' ended for another reason than being done (other) and is not whole"
    )


async def test_a_lone_analysis_that_was_cut_off_is_told() -> None:
    a = FakeModel(["4", CUT, "whole"], name="a")
    result = await orchestrator_of(a).process_responses("Q", strategy=Synthesize(analysts="one"))
    assert result.status == "degraded"
    assert "stage 'meta': the answer of 'a' stopped at its limit of tokens" in result.notices[0]


async def test_a_client_that_takes_a_prompt_alone_cannot_continue_so_the_next_is_asked() -> None:
    prompts: list[str] = []

    async def cutting(prompt: str) -> Completion:
        prompts.append(prompt)
        reason: Any = "stop" if len(prompts) == 1 else "length"
        return Completion(content="The first of", finish_reason=reason)

    result = await orchestrator_of(cutting, FakeModel(["4", "whole"], name="b")).process_responses(
        "Q", strategy=Synthesize(analysts="none", on_cut="continue")
    )
    assert str(result.final_synthesis) == "whole"
    assert len(prompts) == 2
    assert not any("Continue exactly" in prompt for prompt in prompts)


async def test_a_continued_synthesis_has_the_tokens_and_the_time_of_all_its_parts() -> None:
    a = FakeModel(["4", CUT, FakeAnswer(" three.", finish_reason="stop")], name="a")
    result = await orchestrator_of(a).process_responses(
        "Q", strategy=Synthesize(analysts="none", on_cut="continue")
    )
    synthesis, parts = result.final_synthesis, result.steps[-1].responses
    assert synthesis is not None
    assert str(synthesis) == "The first of three."
    assert synthesis.usage.output == sum(part.usage.output or 0 for part in parts)
    assert synthesis.attempts == len(parts) == 2
