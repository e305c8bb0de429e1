"""Stored responses: OpenAI's contract of the background, and going on with a response."""

from __future__ import annotations

from contextlib import aclosing
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.service_protocols import PIXEL, RESPONSES, events_of, question, said
from helpers.services import Answer, ask, broken_off, get, partial_events, service_of
from ultra import ModelError
from ultra.config.keys import KeyConfig, hash_of
from ultra.config.serving import ServeConfig
from ultra.messages.chat import ReasoningPart, ToolCall
from ultra.service.http import Request
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from ultra.service.core import Service

TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


def cities(**more: Any) -> dict[str, object]:
    return {"a": FakeModel("Paris.", **more), "b": FakeModel("Lyon.", **more)}


def background(**more: Any) -> dict[str, Any]:
    return question(RESPONSES, background=True, **more)


async def retrieve(service: Service, name: str, query: str = "", **more: Any) -> Answer:
    return await get(service, f"{RESPONSES}/{name}{query}", **more)


async def ended(service: Service, name: str, **more: Any) -> dict[str, Any]:
    """The response, once it has ended."""
    await retrieve(service, name, "?stream=true", **more)
    response: dict[str, Any] = (await retrieve(service, name, **more)).json
    return response


async def test_a_response_in_the_background_is_accepted_at_once_and_retrieved_when_it_is_done() -> None:
    models: dict[str, Any] = cities(gated=True)
    service = service_of(models, journal="memory")
    async with service.running():
        accepted = await ask(service, background(instructions="Be brief.", metadata={"a": "b"}), RESPONSES)
        name = accepted.json["id"]
        await models["a"].asked.wait()
        events = await partial_events(service, f"{RESPONSES}/{name}?stream=true", 2)
        waiting = await retrieve(service, name)
        for model in models.values():
            model.gate.set()
        response = await ended(service, name)

    assert accepted.status == 200
    assert accepted.json["status"] in {"queued", "in_progress"}
    assert events_of(events)[-1]["type"] == "response.in_progress"
    assert (waiting.json["status"], waiting.json["output"]) == ("in_progress", [])
    assert waiting.headers["openai-poll-after-ms"] == "1000"
    assert (response["status"], response["background"], response["store"]) == ("completed", True, True)
    assert (response["instructions"], response["metadata"]) == ("Be brief.", {"a": "b"})
    assert response["created_at"] == accepted.json["created_at"]
    assert response["completed_at"] >= response["created_at"]
    assert response["output"][0]["content"][0]["text"] == "Paris."
    assert response["usage"]["total_tokens"] > 0


async def test_the_events_of_a_response_in_the_background_come_again_with_their_numbers() -> None:
    service = service_of({"a": FakeModel(FakeAnswer("It ", "is ", "Paris."))}, journal="memory")
    async with service.running():
        streamed = await ask(service, background(model="a", stream=True), RESPONSES)
        events = events_of(streamed)
        name = events[0]["response"]["id"]
        again = await retrieve(service, name, "?stream=true&include_obfuscation=false")
        rests = [
            events_of(await retrieve(service, name, f"?stream=true&starting_after={number}"))
            for number in range(-1, len(events))
        ]
        whole = (await retrieve(service, name)).json

    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    assert events[0]["response"]["status"] == events[1]["response"]["status"] == "queued"
    assert said(RESPONSES, streamed) == "It is Paris."
    assert events_of(again) == events
    assert rests == [events[number:] for number in range(len(events) + 1)]
    assert events[-1]["response"] == whole


async def test_a_stream_that_is_dropped_at_its_first_event_goes_on_where_it_was() -> None:
    model = FakeModel("Paris.", gated=True)
    service = service_of({"a": model}, journal="memory")
    request = Request(
        method="POST",
        path=RESPONSES,
        peer="127.0.0.1",
        body=b'{"model":"a","input":"x","background":true,"stream":true}',
    )
    async with service.running():
        async with service.answering(request) as reply:
            body: Any = reply.body
            async with aclosing(body):
                first = events_of(Answer(200, {}, [(0.0, await anext(body))]))
        name = first[0]["response"]["id"]
        model.gate.set()
        last = first[-1]["sequence_number"]
        rest = events_of(await retrieve(service, name, f"?stream=true&starting_after={last}"))

    numbers = [event["sequence_number"] for event in first + rest]
    assert numbers == list(range(len(numbers)))
    assert rest[-1]["type"] == "response.completed"


async def test_a_response_is_stored_unless_it_says_that_it_shall_not_be() -> None:
    service = service_of(cities(), journal="memory")
    ways: list[dict[str, Any]] = [{}, {"store": True}, {"store": False}, {"stream": True}]
    async with service.running():
        answers = [
            await ask(service, question(RESPONSES, asks=f"{number}", **more), RESPONSES)
            for number, more in enumerate(ways)
        ]
        plain, stored, not_stored, streamed = answers
        found = [(await retrieve(service, each.json["id"])) for each in (plain, stored, not_stored)]
        name = events_of(streamed)[0]["response"]["id"]
        of_stream = (await retrieve(service, name)).json

    assert [each.json["store"] for each in (plain, stored, not_stored)] == [True, True, False]
    assert [each.status for each in found] == [200, 200, 404]
    for answer, again in zip((plain, stored), found, strict=False):
        assert {**answer.json, "completed_at": 0} == {**again.json, "completed_at": 0}
    assert of_stream["output"] == events_of(streamed)[-1]["response"]["output"]
    assert of_stream["background"] is False


async def test_a_service_without_a_journal_stores_nothing() -> None:
    service = service_of(cities())
    async with service.running():
        plain = await ask(service, question(RESPONSES, store=True), RESPONSES)
        in_background = await ask(service, background(), RESPONSES)
        previous = await ask(service, question(RESPONSES, previous_response_id="resp_1"), RESPONSES)
        unknown = await retrieve(service, plain.json["id"])

    assert plain.json["store"] is False
    assert (in_background.status, in_background.error["param"]) == (400, "background")
    assert (previous.status, previous.error["param"]) == (400, "previous_response_id")
    assert (unknown.status, unknown.error["code"]) == (404, "response_not_found")


async def test_the_background_needs_what_is_stored() -> None:
    service = service_of(cities(), journal="memory")
    async with service.running():
        answer = await ask(service, background(store=False), RESPONSES)

    assert (answer.status, answer.error["param"]) == (400, "background")


async def test_a_response_goes_on_with_an_earlier_one() -> None:
    model = FakeModel(lambda request: f"{len(request.messages)}")
    service = service_of({"a": model}, journal="memory")
    async with service.running():
        body = question(RESPONSES, "a", asks="One?", instructions="Be brief.")
        first = (await ask(service, body, RESPONSES)).json
        more = {"previous_response_id": first["id"], "instructions": "Be long."}
        second = (await ask(service, question(RESPONSES, "a", asks="Two?", **more), RESPONSES)).json
        third_body = background(model="a", asks="Three?", previous_response_id=second["id"])
        third = await ended(service, (await ask(service, third_body, RESPONSES)).json["id"])
        items = await get(service, f"{RESPONSES}/{third['id']}/input_items?order=asc")
        newest = await get(service, f"{RESPONSES}/{third['id']}/input_items?limit=2")
        after = await get(service, f"{RESPONSES}/{third['id']}/input_items?after={newest.json['last_id']}")

    messages = [[(each.role, each.text) for each in call.request.messages] for call in model.calls]
    assert messages == [
        [("system", "Be brief."), ("user", "One?")],
        [("system", "Be long."), ("user", "One?"), ("assistant", "2"), ("user", "Two?")],
        [
            ("user", "One?"),
            ("assistant", "2"),
            ("user", "Two?"),
            ("assistant", "4"),
            ("user", "Three?"),
        ],
    ]
    assert second["previous_response_id"] == first["id"]
    told = [(item["role"], item["content"][0]["text"]) for item in items.json["data"]]
    assert told == messages[2]
    assert [item["content"][0]["text"] for item in newest.json["data"]] == ["Three?", "4"]
    assert newest.json["has_more"]
    assert [item["content"][0]["text"] for item in after.json["data"]] == ["Two?", "2", "One?"]


async def test_the_results_of_tools_go_on_with_the_response_that_called_them() -> None:
    call = ToolCall("call_1", "look", "{}")
    model = FakeModel(
        lambda request: "Sunny." if request.messages[-1].role == "tool" else FakeAnswer(tool_calls=(call,))
    )
    service = service_of({"a": model}, journal="memory")
    async with service.running():
        first = (await ask(service, question(RESPONSES, "a", tools=[TOOL]), RESPONSES)).json
        output = {"type": "function_call_output", "call_id": "call_1", "output": "blue sky"}
        body = {"model": "a", "input": [output], "tools": [TOOL], "previous_response_id": first["id"]}
        second = await ask(service, body, RESPONSES)
        items = await get(service, f"{RESPONSES}/{second.json['id']}/input_items?order=asc")

    assert first["output"][0]["type"] == "function_call"
    assert said(RESPONSES, second) == "Sunny."
    assert [item["type"] for item in items.json["data"]] == [
        "message",
        "function_call",
        "function_call_output",
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_items_of_stored_responses_may_be_given_by_their_names(*, stream: bool) -> None:
    """So does the AI SDK, which takes each response for stored."""
    call = ToolCall("call_1", "look", "{}")
    thought = ReasoningPart("Where?", "openai", encrypted="sealed")
    answers = [FakeAnswer("I look.", tool_calls=(call,), reasoning_parts=(thought,)), FakeAnswer("Paris.")]
    model = FakeModel(lambda request: answers[len(request.messages) > 1])
    service = service_of({"a": model}, journal="memory")
    async with service.running():
        body = {"model": "a", "input": [{"role": "user", "content": "Which?"}], "tools": [TOOL]}
        answer = await ask(service, {**body, "stream": stream}, RESPONSES)
        first = events_of(answer)[-1]["response"] if stream else answer.json
        named = [{"type": "item_reference", "id": item["id"]} for item in first["output"]]
        result = {"type": "function_call_output", "call_id": "call_1", "output": "A tower."}
        second = await ask(service, {**body, "input": [*body["input"], *named, result]}, RESPONSES)
        gone = {"type": "item_reference", "id": "msg_0"}
        unknown = await ask(service, {**body, "input": [*body["input"], gone]}, RESPONSES)

    assert [item["type"] for item in first["output"]] == ["reasoning", "message", "function_call"]
    assert said(RESPONSES, second) == "Paris."
    asks, turn, told = model.calls[1].request.messages
    assert (asks.text, turn.text, told.text) == ("Which?", "I look.", "A tower.")
    assert turn.tool_calls == (call,)
    assert [part.encrypted for part in turn.parts if isinstance(part, ReasoningPart)] == ["sealed"]
    assert (unknown.status, unknown.error["param"]) == (400, "input[1].id")


async def test_nobody_gets_items_of_somebody_elses_responses() -> None:
    names = ("ann", "bob")
    keys = tuple(KeyConfig(name=name, hash=hash_of(name)) for name in names)
    ann, bob = ({"authorization": f"Bearer {name}"} for name in names)
    service = service_of(cities(), settings=ServeConfig(keys=keys), journal="memory")
    async with service.running():
        first = await ask(service, question(RESPONSES, "a"), RESPONSES, headers=ann)
        named = {"type": "item_reference", "id": first.json["output"][0]["id"]}
        body = {"model": "a", "input": [named, {"role": "user", "content": "And?"}]}
        own = await ask(service, body, RESPONSES, headers=ann)
        others = await ask(service, body, RESPONSES, headers=bob)

    assert (own.status, others.status) == (200, 400)
    assert others.error["code"] == "item_not_found"


async def test_what_short_names_stand_for_is_no_longer_than_a_body_may_be() -> None:
    service = service_of(
        {"a": FakeModel("x" * 3_000)}, settings=ServeConfig(max_body=10_000), journal="memory"
    )
    async with service.running():
        first = await ask(service, question(RESPONSES, "a"), RESPONSES)
        named = {"type": "item_reference", "id": first.json["output"][0]["id"]}
        asked = {"role": "user", "content": "And?"}
        three, four = [
            await ask(service, {"model": "a", "input": [*[named] * times, asked]}, RESPONSES)
            for times in (3, 4)
        ]

    assert (three.status, four.status) == (200, 413)
    assert (four.error["code"], four.error["param"]) == ("request_too_large", "input[3]")


async def test_instructions_in_the_input_are_kept_and_those_beside_it_are_not() -> None:
    model = FakeModel("Oui.")
    service = service_of({"a": model}, journal="memory")
    given = [
        {"role": "developer", "content": "Answer in French."},
        {"role": "user", "content": "One?"},
    ]
    async with service.running():
        body = {"model": "a", "input": given, "instructions": "Be brief."}
        first = (await ask(service, body, RESPONSES)).json
        more = {"previous_response_id": first["id"], "instructions": "Be long."}
        await ask(service, question(RESPONSES, "a", asks="Two?", **more), RESPONSES)
        items = (await get(service, f"{RESPONSES}/{first['id']}/input_items?order=asc")).json["data"]

    said_to_it = [(each.role, each.text) for each in model.calls[-1].request.messages]
    assert said_to_it == [
        ("system", "Be long.\n\nAnswer in French."),
        ("user", "One?"),
        ("assistant", "Oui."),
        ("user", "Two?"),
    ]
    assert [(item["role"], item["content"][0]["text"]) for item in items] == [
        ("system", "Answer in French."),
        ("user", "One?"),
    ]


async def test_images_of_an_earlier_response_are_still_there() -> None:
    service = service_of({"a": FakeModel("A pixel.")}, journal="memory")
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"}
    content = [{"type": "input_text", "text": "What is it?"}, image]
    async with service.running():
        body = {"model": "a", "input": [{"role": "user", "content": content}]}
        first = (await ask(service, body, RESPONSES)).json
        items = await get(service, f"{RESPONSES}/{first['id']}/input_items")

    assert items.json["data"][0]["content"][1]["image_url"] == image["image_url"]


async def test_an_earlier_response_that_is_not_there_or_has_no_answer_is_refused(
    autojump_clock: MockClock,
) -> None:
    service = service_of({"a": FakeModel(seconds=inf)}, journal="memory")
    async with service.running():
        going = (await ask(service, background(model="a"), RESPONSES)).json["id"]
        unknown = await ask(service, question(RESPONSES, "a", previous_response_id="resp_0"), RESPONSES)
        early = await ask(service, question(RESPONSES, "a", previous_response_id=going), RESPONSES)

    assert (unknown.status, unknown.error["code"]) == (400, "previous_response_not_found")
    assert "'resp_0'" in unknown.error["message"]
    assert (early.status, early.error["param"]) == (400, "previous_response_id")


async def test_a_response_that_is_cancelled_twice_gives_the_same(autojump_clock: MockClock) -> None:
    service = service_of({"a": FakeModel(FakeAnswer("Par", "is", piece_seconds=20))}, journal="memory")
    async with service.running():
        name = (await ask(service, background(model="a"), RESPONSES)).json["id"]
        await trio.sleep(5)
        once, twice = [await ask(service, b"", f"{RESPONSES}/{name}/cancel") for _ in range(2)]
        events = events_of(await retrieve(service, name, "?stream=true"))
        done = (await ask(service, background(model="a", asks="z"), RESPONSES)).json["id"]
        await ended(service, done)
        late = await ask(service, b"", f"{RESPONSES}/{done}/cancel")

    assert once.body == twice.body
    assert (once.json["status"], once.json["error"]) == ("cancelled", None)
    assert (events[-1]["type"], events[-1]["response"]["status"]) == ("response.failed", "cancelled")
    assert late.json["status"] == "completed"


async def test_a_response_in_the_foreground_cannot_be_cancelled() -> None:
    service = service_of(cities(), journal="memory")
    async with service.running():
        name = (await ask(service, question(RESPONSES), RESPONSES)).json["id"]
        answer = await ask(service, b"", f"{RESPONSES}/{name}/cancel")

    assert (answer.status, answer.error["code"]) == (400, "not_in_background")


async def test_a_response_is_deleted(autojump_clock: MockClock) -> None:
    service = service_of({"a": FakeModel("x"), "slow": FakeModel(seconds=inf)}, journal="memory")
    async with service.running():
        for model in ("a", "slow"):
            name = (await ask(service, background(model=model), RESPONSES)).json["id"]
            deleted = await ask(service, b"", f"{RESPONSES}/{name}", method="DELETE")
            again = await ask(service, b"", f"{RESPONSES}/{name}", method="DELETE")
            assert deleted.json == {"id": name, "object": "response", "deleted": True}
            assert (await retrieve(service, name)).status == again.status == 404


async def test_a_response_that_failed_says_how_and_without_the_words_of_a_provider() -> None:
    error = ModelError("the key sk-secret-0123456789 is wrong", kind="rate_limit")
    service = service_of({"a": FakeModel().fail(error, times=9)}, journal="memory")
    async with service.running():
        name = (await ask(service, background(model="a"), RESPONSES)).json["id"]
        response = await ended(service, name)
        stream = await retrieve(service, name, "?stream=true")

    assert (response["status"], response["error"]["code"]) == ("failed", "rate_limit_exceeded")
    assert events_of(stream)[-1]["response"] == response
    assert b"secret" not in stream.body


@pytest.mark.parametrize("words", ["I cannot help with that.", None])
async def test_a_refusal_in_the_background_is_told_as_in_the_foreground(words: str | None) -> None:
    refusal = FakeAnswer(refusal=words) if words else FakeAnswer("Well", finish_reason="content_filter")
    service = service_of({"a": FakeModel(refusal)}, journal="memory")
    async with service.running():
        kept = (await ask(service, question(RESPONSES, "a"), RESPONSES)).json
        not_kept = (await ask(service, question(RESPONSES, "a", store=False), RESPONSES)).json
        again = (await retrieve(service, kept["id"])).json
        behind = await ended(service, (await ask(service, background(model="a"), RESPONSES)).json["id"])
        stream = await retrieve(service, behind["id"], "?stream=true")

    def told(response: dict[str, Any]) -> Any:
        content = [
            {name: part.get(name) for name in ("type", "text", "refusal")}
            for item in response["output"]
            for part in item["content"]
        ]
        return response["status"], response["incomplete_details"], content, response["error"]

    assert told(kept) == told(not_kept) == told(again) == told(behind)
    assert told(events_of(stream)[-1]["response"]) == told(behind)


async def test_an_answer_that_is_cut_is_incomplete() -> None:
    service = service_of({"a": FakeModel(FakeAnswer("Par", finish_reason="length"))}, journal="memory")
    async with service.running():
        response = await ended(service, (await ask(service, background(model="a"), RESPONSES)).json["id"])

    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}


async def test_a_text_that_is_begun_anew_is_a_message_of_its_own() -> None:
    first = FakeModel(["One.", FakeAnswer("Half", " of it.")]).fail(at=2, after_pieces=1)
    service = service_of({"a": first, "b": FakeModel(["Two.", "Whole."])}, journal="memory")
    async with service.running():
        streamed = await ask(service, background(stream=True), RESPONSES)
        events = events_of(streamed)
        whole = (await retrieve(service, events[0]["response"]["id"])).json

    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [(item["status"], item["content"][0]["text"]) for item in done] == [
        ("incomplete", "Half"),
        ("completed", "Whole."),
    ]
    assert [event["output_index"] for event in events if event["type"] == "response.output_item.added"] == [
        0,
        1,
    ]
    assert done[0]["id"] != done[1]["id"]
    assert whole["output"] == [done[1]] == events[-1]["response"]["output"]


async def test_extensions_formats_and_reasoning_are_told_as_in_the_foreground() -> None:
    form = {"type": "json_schema", "name": "city", "schema": {"type": "object", "properties": {}}}
    bodies: list[dict[str, Any]] = [
        {"ultra": {"expose": ["panel", "usage"]}},
        {"text": {"format": form}},
        {"model": "b", "ultra": {}},
    ]
    service = service_of({"a": FakeModel('{"a": 1}'), "b": FakeModel('{"a": 1}')}, journal="memory")
    async with service.running():
        for body in bodies:
            plain = (await ask(service, question(RESPONSES, **body), RESPONSES)).json
            name = (await ask(service, background(**body), RESPONSES)).json["id"]
            behind = await ended(service, name)
            assert [item["type"] for item in plain["output"]] == [item["type"] for item in behind["output"]]
            assert plain.get("ultra", {}).keys() == behind.get("ultra", {}).keys()
            assert plain.get("ultra", {}).get("strategy") == behind.get("ultra", {}).get("strategy")
            assert plain["text"] == behind["text"]


async def test_a_key_sees_its_own_responses_only() -> None:
    keys = tuple(KeyConfig(name=name, hash=hash_of(f"sk-{name}")) for name in ("alice", "bob"))
    service = service_of(cities(), journal="memory", settings=ServeConfig(keys=keys))
    alice, bob = ({"authorization": f"Bearer sk-{name}"} for name in ("alice", "bob"))
    async with service.running():
        name = (await ask(service, background(), RESPONSES, headers=alice)).json["id"]
        await ended(service, name, headers=alice)
        refused = [
            await retrieve(service, name, headers=bob),
            await retrieve(service, name, "?stream=true", headers=bob),
            await get(service, f"{RESPONSES}/{name}/input_items", headers=bob),
            await ask(service, b"", f"{RESPONSES}/{name}/cancel", headers=bob),
            await ask(service, b"", f"{RESPONSES}/{name}", method="DELETE", headers=bob),
        ]
        body = question(RESPONSES, previous_response_id=name)
        stolen = await ask(service, body, RESPONSES, headers=bob)
        own = await ask(service, body, RESPONSES, headers=alice)

    assert {(answer.status, answer.error["code"]) for answer in refused} == {(404, "response_not_found")}
    assert (stolen.status, own.status) == (400, 200)


async def test_a_run_of_another_protocol_is_no_response_and_a_response_is_a_run() -> None:
    service = service_of(cities(), journal="memory")
    async with service.running():
        run_id = (await ask(service, {"prompt": "x", "background": True}, "/v1/runs")).json["id"]
        name = (await ask(service, background(), RESPONSES)).json["id"]
        await ended(service, name)
        no_response = await retrieve(service, f"resp_{run_id}")
        bare = await retrieve(service, name.removeprefix("resp_"))
        run = (await get(service, f"/v1/runs/{name.removeprefix('resp_')}")).json

    assert (no_response.status, bare.status) == (404, 404)
    assert (run["protocol"], run["model"], run["state"]) == ("responses", "council", "completed")


async def test_what_cannot_be_written_down_is_answered_and_not_stored() -> None:
    tool = {**TOOL, "parameters": {"type": "object", "properties": {"n": {"maximum": 10**40}}}}
    service = service_of({"a": FakeModel("Paris.")}, journal="memory")
    async with service.running():
        plain = await ask(service, question(RESPONSES, "a", tools=[tool]), RESPONSES)
        behind = await ask(service, background(model="a", tools=[tool]), RESPONSES)

    assert (plain.status, plain.json["store"]) == (200, False)
    assert (behind.status, behind.error["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("query", ["?stream=maybe", "?stream=true&starting_after=x", "?starting_after=1"])
async def test_a_wrong_query_is_refused(query: str) -> None:
    service = service_of(cities(), journal="memory")
    async with service.running():
        name = (await ask(service, question(RESPONSES), RESPONSES)).json["id"]
        answer = await retrieve(service, name, query)
        items = await get(service, f"{RESPONSES}/{name}/input_items?after=nobody")

    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert (items.status, items.error["param"]) == (400, "after")


async def test_a_response_outlives_its_service_and_its_stream_goes_on(tmp_path: Path) -> None:
    journal = f"sqlite:///{tmp_path}/runs.db"
    first = service_of({"a": FakeModel(FakeAnswer("Half", "x", piece_seconds=25))}, journal=journal)
    async with broken_off(first):
        name = (await ask(first, background(model="a"), RESPONSES)).json["id"]
        before = events_of(await partial_events(first, f"{RESPONSES}/{name}?stream=true", 3))
    second = service_of({"a": FakeModel("It is Paris.")}, journal=journal)
    async with second.running():
        events = events_of(await retrieve(second, name, "?stream=true"))
        again = events_of(await retrieve(second, name, "?stream=true"))

    assert events == again
    assert before == events[: len(before)]
    assert before[-1]["delta"] == "Half"
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "It is Paris."
