"""The models in a program: streaming, options, conversations, attachments, schemas, asyncio."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import llm
import pytest
import trio
from anyio.from_thread import BlockingPortal

from ultra.faults.provider import Failure, Reply, SimulatedProvider

pytestmark = pytest.mark.usefixtures("configured")

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def test_the_answers_are_merged_and_the_merged_one_streams(
    provider: SimulatedProvider, portal: BlockingPortal
) -> None:
    hold = portal.call(trio.Event)
    provider.script("Paris.", Reply(("It ", "is ", "Paris."), hold=hold), model="gpt")
    provider.script("Lyon.", model="claude")

    response = llm.get_model("ultra/council").prompt("Which city?")
    pieces = iter(response)

    assert next(pieces) == "It "
    portal.call(hold.set)
    assert "".join(pieces) == "is Paris."
    assert response.resolved_model == "gpt"
    assert response.usage().output
    assert response.response_json is not None
    told = response.response_json["ultra"]
    assert (told["status"], told["models"], told["failed"]) == ("success", ["gpt", "claude"], [])


def test_without_streaming_the_answer_comes_whole(provider: SimulatedProvider) -> None:
    provider.script("Paris.", Reply(("It ", "is ", "Paris.")), model="gpt")

    assert list(llm.get_model("ultra/council").prompt("Which city?", stream=False)) == ["It is Paris."]


def test_one_model_can_be_asked(provider: SimulatedProvider) -> None:
    provider.script("Lyon.", model="claude")

    assert llm.get_model("ultra/claude").prompt("Which city?").text() == "Lyon."
    assert provider.request_count == 1


def test_the_short_name_means_all_models(provider: SimulatedProvider) -> None:
    assert llm.get_model("ultra").model_id == "ultra/ultra"
    assert llm.get_model("ultra").prompt("Which city?", strategy="best_of").text()
    assert {request.body["model"] for request in provider.requests} == {"gpt", "claude"}


def test_options_are_those_of_the_run(provider: SimulatedProvider) -> None:
    provider.script("Lyon.", model="claude")
    provider.script("Paris.", model="gpt")

    response = llm.get_model("ultra/council").prompt(
        "Which city?", strategy="best_of", quorum="2", timeout=30, temperature=0.5, max_tokens=99
    )

    assert response.text() in {"Paris.", "Lyon."}
    assert response.response_json is not None
    assert response.response_json["ultra"]["strategy"] == "best_of"
    body = provider.requests[0].body
    assert body["temperature"] == 0.5
    assert 99 in {body.get("max_tokens"), body.get("max_completion_tokens")}


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"strategy": "votes"}, "unknown strategy 'votes'; there are: synthesize"),
        ({"quorum": "many"}, "quorum"),
        ({"timeout": 0}, "timeout"),
        ({"temprature": 1}, "temprature"),
    ],
)
def test_options_that_are_not_allowed_are_told(option: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        llm.get_model("ultra/council").prompt("Which city?", **option)


def test_a_quorum_of_more_models_than_there_are_is_an_error() -> None:
    with pytest.raises(llm.ModelError, match="quorum"):
        llm.get_model("ultra/council").prompt("Which city?", quorum=5).text()


def test_a_conversation_and_a_system_prompt_reach_every_model(provider: SimulatedProvider) -> None:
    provider.script("Paris.", "Two million.", model="gpt")

    conversation = llm.get_model("ultra/gpt").conversation()
    conversation.prompt("Which city?", system="Be brief.").text()
    assert conversation.prompt("How many live there?").text() == "Two million."

    messages = provider.requests[1].body["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert [message["content"] for message in messages[1:]] == [
        "Which city?",
        "Paris.",
        "How many live there?",
    ]
    assert "Be brief." in messages[0]["content"]


def test_images_and_documents_are_attached(provider: SimulatedProvider, tmp_path: Path) -> None:
    image = tmp_path / "dot.png"
    image.write_bytes(PIXEL)
    attachments = [
        llm.Attachment(path=str(image)),
        llm.Attachment(content=b"%PDF-1.4 x", type="application/pdf"),
    ]

    llm.get_model("ultra/gpt").prompt("What is it?", attachments=attachments).text()

    kinds = [part["type"] for part in provider.requests[0].body["messages"][-1]["content"]]
    assert sorted(kinds) == ["file", "image_url", "text"]


def test_other_attachments_are_refused() -> None:
    with pytest.raises(ValueError, match="audio/wav"):
        llm.get_model("ultra/gpt").prompt(
            "What is it?", attachments=[llm.Attachment(content=b"RIFF", type="audio/wav")]
        )


def test_a_schema_gives_json_that_satisfies_it(provider: SimulatedProvider) -> None:
    provider.script('{"city": "Paris"}', model="gpt")

    response = llm.get_model("ultra/gpt").prompt("Which city?", schema=SCHEMA)

    assert json.loads(response.text()) == {"city": "Paris"}
    asked = provider.requests[0].body["messages"][-1]["content"]
    assert '"required":["city"]' in asked


def test_a_writer_that_fails_in_the_middle_is_an_error_while_streaming_and_none_without(
    provider: SimulatedProvider,
) -> None:
    def script() -> None:
        broken = Reply(("It is ", "L"), failure=Failure("server"))
        provider.script("Paris.", broken, model="gpt")
        provider.script("Paris.", "It is Paris.", model="claude")

    script()
    response = llm.get_model("ultra/council").prompt("Which city?")
    with pytest.raises(llm.ModelError, match="another one wrote it anew; --no-stream"):
        response.text()

    provider._scripts.clear()
    script()
    assert llm.get_model("ultra/council").prompt("Which city?", stream=False).text() == "It is Paris."


def test_stages_that_write_no_answer_are_an_error() -> None:
    with pytest.raises(llm.ModelError, match="write no answer; add 'synthesis'"):
        llm.get_model("ultra/unmerged").prompt("Which city?").text()


def test_failures_are_errors_of_llm(provider: SimulatedProvider) -> None:
    provider.script(Failure("auth"), model="gpt")

    with pytest.raises(llm.ModelError, match="All attempts failed for model 'gpt'"):
        llm.get_model("ultra/gpt").prompt("Which city?").text()


def test_leaving_a_stream_cancels_the_call(provider: SimulatedProvider, portal: BlockingPortal) -> None:
    provider.tokens_per_second = 1.0
    provider.script(Reply("word " * 1000), model="gpt")

    pieces = iter(llm.get_model("ultra/gpt").prompt("Write."))
    next(pieces)
    pieces.close()  # type: ignore[attr-defined] # it is a generator

    assert portal.call(provider.requests[0].wait_ended) == "abandoned"


def test_the_async_model_streams_on_asyncio(provider: SimulatedProvider) -> None:
    provider.script("Paris.", Reply(("It ", "is ", "Paris.")), model="gpt")

    async def main() -> tuple[str, str | None]:
        response = llm.get_async_model("ultra/council").prompt("Which city?")
        return "".join([piece async for piece in response]), response.resolved_model

    assert asyncio.run(main()) == ("It is Paris.", "gpt")


def test_cancelling_the_async_model_cancels_the_call(
    provider: SimulatedProvider, portal: BlockingPortal
) -> None:
    provider.tokens_per_second = 1.0
    provider.script(Reply("word " * 1000), model="gpt")

    async def main() -> None:
        response = llm.get_async_model("ultra/gpt").prompt("Write.")
        task = asyncio.ensure_future(anext(aiter(response)))
        await task
        reading = asyncio.create_task(response.text())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(main())
    assert portal.call(provider.requests[0].wait_ended) == "abandoned"
