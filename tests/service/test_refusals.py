"""What is answered if the models refuse, or a filter stops them: in the words of the protocol."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.service_protocols import MESSAGES, PATHS, RESPONSES, events_of, question, said
from helpers.services import CHAT, Answer, ask, service_of
from ultra import ModelError, Usage
from ultra.service.core import Service
from ultra.testing import FakeAnswer, FakeModel

WORDS = "I cannot help with that."
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
PROTOCOLS = pytest.mark.parametrize("path", PATHS)


async def asked(service: Service, path: str, model: str = "a", **more: Any) -> Answer:
    async with service.running():
        return await ask(service, question(path, model, **more), path)


def told(path: str, answer: Answer) -> dict[str, Any]:
    """What an answer tells of the refusal: why it ends, and the words."""
    streamed = answer.headers["content-type"].startswith("text/event-stream")
    match path:
        case "/v1/chat/completions":
            if not streamed:
                (choice,) = answer.json["choices"]
                return {"finish": choice["finish_reason"], "words": choice["message"]["refusal"]}
            choices = [chunk["choices"][0] for chunk in answer.chunks if chunk["choices"]]
            words = [each["delta"]["refusal"] for each in choices if "refusal" in each["delta"]]
            return {"finish": choices[-1]["finish_reason"], "words": words[0] if words else None}
        case "/v1/messages":
            message = answer.json if not streamed else events_of(answer)[-2]["delta"]
            assert message["stop_details"]["type"] == message["stop_reason"]
            return {"finish": message["stop_reason"], "words": message["stop_details"]["explanation"]}
        case _:
            response = answer.json if not streamed else events_of(answer)[-1]["response"]
            parts = [part for item in response["output"] for part in item["content"]]
            words = [part["refusal"] for part in parts if part["type"] == "refusal"]
            finish = (response["incomplete_details"] or {}).get("reason", response["status"])
            return {"finish": finish, "words": words[0] if words else None}


def text(path: str, answer: Answer) -> str:
    """The text of an answer; a whole one may have none."""
    if path == RESPONSES and not answer.headers["content-type"].startswith("text/event-stream"):
        parts = [part for item in answer.json["output"] for part in item["content"]]
        return "".join(part["text"] for part in parts if part["type"] == "output_text")
    found = said(path, answer)
    return "" if found == "None" else found


@STREAMED
@PROTOCOLS
async def test_a_model_that_refuses_is_told_in_the_form_of_the_protocol(path: str, *, stream: bool) -> None:
    model = FakeModel(FakeAnswer(refusal=WORDS), usage=Usage(input=7, output=3))
    answer = await asked(service_of({"a": model}), path, stream=stream)

    finish = {CHAT: "content_filter", MESSAGES: "refusal", RESPONSES: "completed"}[path]
    assert answer.status == 200
    assert told(path, answer) == {"finish": finish, "words": WORDS}
    assert text(path, answer) == ""
    assert b'tokens":7' in answer.body or path == CHAT
    assert len(model.calls) == 1


@STREAMED
@PROTOCOLS
async def test_an_answer_that_a_filter_stops_is_told_with_what_there_was_of_it(
    path: str, *, stream: bool
) -> None:
    model = FakeModel(FakeAnswer("How to ", "do it", finish_reason="content_filter"))
    answer = await asked(service_of({"a": model}), path, stream=stream)

    finish = {CHAT: "content_filter", MESSAGES: "refusal", RESPONSES: "content_filter"}[path]
    assert answer.status == 200
    assert told(path, answer) == {"finish": finish, "words": None}
    assert text(path, answer) == "How to do it"


@STREAMED
@PROTOCOLS
async def test_a_filter_that_refuses_the_request_is_told_likewise_without_its_words(
    path: str, *, stream: bool
) -> None:
    error = ModelError("secret", kind="content", status=400, provider="azure", retryable=False)
    answer = await asked(service_of({"a": FakeModel().fail(error)}), path, stream=stream)

    finish = {CHAT: "content_filter", MESSAGES: "refusal", RESPONSES: "content_filter"}[path]
    assert told(path, answer) == {"finish": finish, "words": None}
    assert b"secret" not in answer.body


@STREAMED
@PROTOCOLS
async def test_a_refusal_of_all_is_told_as_that_of_the_first_which_has_words(
    path: str, *, stream: bool
) -> None:
    models = {
        "a": FakeModel(FakeAnswer(finish_reason="content_filter")),
        "b": FakeModel(FakeAnswer(refusal=WORDS)),
        "c": FakeModel(FakeAnswer(refusal="No.")),
    }
    answer = await asked(service_of(models), path, "council", stream=stream)

    assert answer.status == 200
    assert told(path, answer)["words"] == WORDS


@PROTOCOLS
async def test_one_model_that_refuses_leaves_the_answer_to_the_others(path: str) -> None:
    models = {"a": FakeModel(FakeAnswer(refusal=WORDS)), "b": FakeModel("It is Paris.")}
    answer = await asked(service_of(models), path, "council")

    assert answer.headers["x-ultra-status"] == "degraded"
    assert said(path, answer) == "It is Paris."


@PROTOCOLS
async def test_refusals_beside_other_failures_are_a_failure(path: str) -> None:
    models = {"a": FakeModel(FakeAnswer(refusal=WORDS)), "b": FakeModel().fail(ModelError("x"))}
    answer = await asked(service_of(models), path, "council")

    assert answer.status == 502


async def test_an_answer_that_is_only_empty_is_a_failure() -> None:
    answer = await asked(service_of({"a": FakeModel(FakeAnswer(finish_reason="length"))}), CHAT)

    assert (answer.status, answer.error["code"]) == (502, "model_failed")


@STREAMED
async def test_a_refusal_counts_what_it_has_used_and_tells_it_to_those_who_ask(*, stream: bool) -> None:
    models = {name: FakeModel(FakeAnswer(refusal=WORDS), usage=Usage(input=7, output=3)) for name in "ab"}
    answer = await asked(service_of(models), CHAT, "council", ultra={"expose": ["usage"]}, stream=stream)

    bodies = answer.chunks if stream else [answer.json]
    (summary,) = [body["ultra"] for body in bodies if "ultra" in body]
    assert summary["usage"]["total_tokens"] == 20
    assert summary["strategy"] == "synthesize"
    assert {each["error"] for each in summary["failed_models"]} == {"content"}


async def test_a_writer_that_refuses_in_the_middle_leaves_what_was_sent() -> None:
    model = FakeModel(FakeAnswer("How to ", "do it", refusal=WORDS))
    answer = await asked(service_of({"a": model}), RESPONSES, stream=True)

    events = events_of(answer)
    (item,) = events[-1]["response"]["output"]
    assert [part["type"] for part in item["content"]] == ["output_text", "refusal"]
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    assert [each["content_index"] for each in events if each["type"] == "response.refusal.done"] == [1]
