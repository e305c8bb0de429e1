"""What a model thinks reaches clients of the service while it is written, before the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from trio.testing import MockClock

from helpers.official_clients import in_thread
from helpers.run_events import AT_ONCE
from helpers.services import CHAT, Answer, ask, chat, get, service_of
from ultra import ModelError, MultiLLMOrchestrator
from ultra.config.serving import ServeConfig
from ultra.messages.chat import ReasoningPart, TextPart, ToolCall
from ultra.service.core import Service
from ultra.stores.journal_memory import MemoryJournal
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    pass

MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"

SEALED = (
    ReasoningPart("One and one.", "anthropic", signature="sig"),
    ReasoningPart("", "anthropic", encrypted="enc"),
)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def thinker(*thoughts: ReasoningPart | str, **more: Any) -> FakeModel:
    """A model that thinks, and says that it is 2."""
    parts = tuple(each if isinstance(each, ReasoningPart) else ReasoningPart(each) for each in thoughts)
    return FakeModel(lambda _: FakeAnswer("It ", "is 2.", reasoning_parts=parts, **more))


def retrying(model: FakeModel, *others: FakeModel, **settings: Any) -> Service:
    """A service of a model, which is asked again after a failure, with deployments besides."""
    orchestrator = MultiLLMOrchestrator(retry=AT_ONCE, **settings)
    orchestrator.register_model("a", [model, *others] if others else model)
    return Service(orchestrator, ServeConfig())


def body_for(path: str, model: str = "a", **more: Any) -> dict[str, Any]:
    """The body of a streamed question in a protocol."""
    if path == CHAT:
        return {**chat(model), "stream": True, **more}
    if path == RESPONSES:
        return {"model": model, "input": "1+1?", "stream": True, **more}
    messages = [{"role": "user", "content": "1+1?"}]
    return {"model": model, "max_tokens": 99, "messages": messages, "stream": True, **more}


ASKS: dict[str, dict[str, Any]] = {
    "chat": {"path": CHAT, "include_reasoning": True},
    "responses": {"path": RESPONSES, "reasoning": {"summary": "auto"}},
    "messages": {"path": MESSAGES, "thinking": {"type": "adaptive"}},
    **{path: {"path": path, "ultra": {"expose": ["reasoning"]}} for path in (CHAT, RESPONSES, MESSAGES)},
}


@pytest.mark.parametrize("asks", ASKS.values(), ids=ASKS)
@pytest.mark.parametrize("model", ["a", "council"])
async def test_a_client_that_asks_for_reasoning_lets_the_providers_be_asked_for_it(
    asks: dict[str, Any], model: str
) -> None:
    models = {"a": thinker("One."), "b": thinker("Two.")}
    await asked(service_of(models), model=model, **asks)

    calls = [call for each in models.values() for call in each.calls]
    assert {call.request.options.show_reasoning for call in calls} == {True}


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CHAT, {}),
        (CHAT, {"include_reasoning": False}),
        (RESPONSES, {"reasoning": {"effort": "low"}}),
        (MESSAGES, {"thinking": {"type": "disabled"}}),
        (MESSAGES, {"thinking": {"type": "adaptive", "display": "omitted"}}),
    ],
)
async def test_a_client_that_does_not_ask_for_reasoning_does_not(path: str, more: dict[str, Any]) -> None:
    model = thinker("One.")
    await asked(service_of({"a": model}), path, **more)

    assert {call.request.options.show_reasoning for call in model.calls} == {None}


async def asked(service: Service, path: str, model: str = "a", **more: Any) -> Answer:
    async with service.running():
        return await ask(service, body_for(path, model, **more), path)


def told(answer: Answer) -> list[tuple[str, str]]:
    """Kind and text of the deltas of a stream in any protocol, those of one kind that follow joined."""
    found: list[tuple[str, str]] = []
    for event in answer.chunks:
        for kind, text in _deltas(event):
            if found and found[-1][0] == kind:
                found[-1] = kind, found[-1][1] + text
            else:
                found.append((kind, text))
    return found


def _deltas(event: dict[str, Any]) -> list[tuple[str, str]]:
    delta = event.get("delta") or {}
    match event.get("type"):
        case None:
            deltas = [choice["delta"] for choice in event.get("choices", ())]
            names = {"reasoning_content": "thought", "content": "text"}
            return [(names[name], each[name]) for each in deltas for name in names if each.get(name)]
        case "content_block_delta" if delta["type"] == "thinking_delta":
            return [("thought", delta["thinking"])]
        case "content_block_delta" if delta["type"] == "text_delta":
            return [("text", delta["text"])]
        case "response.reasoning_summary_text.delta":
            return [("thought", event["delta"])]
        case "response.output_text.delta":
            return [("text", event["delta"])]
        case _:
            return []


every_protocol = pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])


# --- one model -------------------------------------------------------------------------------------------


@every_protocol
async def test_one_model_thinks_before_it_writes(path: str) -> None:
    answer = await asked(service_of({"a": thinker("One and one.")}), path)
    assert told(answer) == [("thought", "One and one."), ("text", "It is 2.")]


@every_protocol
async def test_reasoning_is_sent_while_it_is_written(path: str, autojump_clock: MockClock) -> None:
    answer = await asked(service_of({"a": thinker("One two.", piece_seconds=1)}), path)
    at = {b"One ": 0, b"two.": 1, b'"It ': 2}
    for text, second in at.items():
        when = next(moment for moment, piece in answer.pieces if text in piece)
        assert when == pytest.approx(second, abs=0.01)


@every_protocol
async def test_a_model_that_does_not_stream_tells_its_reasoning_first(path: str) -> None:
    answers = FakeAnswer("It is 2.", reasoning="One and one.")
    answer = await asked(service_of({"a": FakeModel(answers, streams=False)}), path)
    assert told(answer) == [("thought", "One and one."), ("text", "It is 2.")]


@every_protocol
async def test_reasoning_in_tags_is_told_as_reasoning(path: str) -> None:
    pieces = ("<th", "ink>One ", "and one.</thi", "nk>It is", " 2.")
    answer = await asked(service_of({"a": FakeModel(FakeAnswer(*pieces))}), path)
    assert told(answer) == [("thought", "One and one."), ("text", "It is 2.")]


@every_protocol
async def test_reasoning_of_a_failed_attempt_does_no_harm_to_the_answer(
    path: str, autojump_clock: MockClock
) -> None:
    answers = [FakeAnswer("no", reasoning="Wrong."), FakeAnswer("It is 2.", reasoning="Right.")]
    model = FakeModel(answers, piece_seconds=1)
    model.fail(ModelError("broken", retryable=True), after_pieces=1)
    answer = await asked(retrying(model), path)
    assert told(answer)[-1] == ("text", "It is 2.")
    assert [kind for kind, _ in told(answer)] == ["thought", "text"]
    if path == RESPONSES:
        output = answer.chunks[-1]["response"]["output"]
        assert [item["type"] for item in output] == ["reasoning", "message"]
        assert output[0]["summary"][0]["text"] == "Right."
    elif path == MESSAGES:
        starts = [e["content_block"]["type"] for e in answer.chunks if e["type"] == "content_block_start"]
        stops = [e["index"] for e in answer.chunks if e["type"] == "content_block_stop"]
        assert (starts, stops) == (["thinking", "thinking", "text"], [0, 1, 2])
    else:
        assert told(answer)[0] == ("thought", "Wrong.\n\nRight.")


@every_protocol
async def test_reasoning_that_only_a_failed_attempt_had_does_no_harm(
    path: str, autojump_clock: MockClock
) -> None:
    broken = FakeModel(FakeAnswer("no", reasoning="Wrong."), piece_seconds=1)
    broken.fail(ModelError("broken", kind="server"), after_pieces=1)
    answer = await asked(retrying(broken, FakeModel("It is 2.")), path)
    assert told(answer) == [("thought", "Wrong."), ("text", "It is 2.")]
    if path == RESPONSES:
        assert [item["type"] for item in answer.chunks[-1]["response"]["output"]] == ["message"]


@every_protocol
async def test_a_model_that_only_thinks_fails_in_the_form_of_the_protocol(path: str) -> None:
    model = FakeModel(FakeAnswer(reasoning="Hm.", finish_reason="length"))
    answer = await asked(service_of({"a": model}), path)
    assert told(answer) == [("thought", "Hm.")]
    assert b"error" in answer.body


async def test_signatures_and_hidden_thinking_come_before_the_text() -> None:
    answer = await asked(service_of({"a": thinker(*SEALED)}), MESSAGES)
    kinds: list[tuple[str, str]] = []
    for event in answer.chunks:
        if not event["type"].startswith("content_block_"):
            continue
        kind = (event["type"].removeprefix("content_block_"), (event.get("delta") or event)["type"])
        if kinds[-1:] != [kind]:
            kinds.append(kind)
    assert kinds == [
        ("start", "content_block_start"),
        ("delta", "thinking_delta"),
        ("delta", "signature_delta"),
        ("stop", "content_block_stop"),
        ("start", "content_block_start"),
        ("stop", "content_block_stop"),
        ("start", "content_block_start"),
        ("delta", "text_delta"),
        ("stop", "content_block_stop"),
    ]
    blocks = [e["content_block"] for e in answer.chunks if e["type"] == "content_block_start"]
    assert [block["type"] for block in blocks] == ["thinking", "redacted_thinking", "text"]
    assert blocks[1]["data"] == "enc"
    signatures = [e["delta"]["signature"] for e in answer.chunks if "signature" in (e.get("delta") or {})]
    assert signatures == ["sig"]


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_request_may_leave_reasoning_out(path: str) -> None:
    left_out: dict[str, dict[str, Any]] = {
        CHAT: {"include_reasoning": False},
        MESSAGES: {"thinking": {"type": "disabled"}},
    }
    answer = await asked(service_of({"a": thinker("Hm.")}), path, **left_out[path])
    assert told(answer) == [("text", "It is 2.")]


@every_protocol
async def test_a_whole_answer_stays_as_it_is(path: str) -> None:
    service = service_of({"a": FakeModel(FakeAnswer("It is 2.", reasoning="Hm."))})
    answer = await asked(service, path, stream=False)
    assert answer.status == 200
    assert b"Hm." not in answer.body


@every_protocol
async def test_json_is_told_when_it_is_whole_and_the_reasoning_before(path: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    named = {"name": "n", "schema": schema}
    forms: dict[str, dict[str, Any]] = {
        CHAT: {"response_format": {"type": "json_schema", "json_schema": named}},
        RESPONSES: {"text": {"format": {"type": "json_schema", **named}}},
        MESSAGES: {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
    }
    model = FakeModel(FakeAnswer('{"n"', ": 2}", reasoning="One and one."))
    answer = await asked(service_of({"a": model}), path, **forms[path])
    assert told(answer) == [("thought", "One and one."), ("text", '{"n": 2}')]


# --- an ensemble -----------------------------------------------------------------------------------------

OPT_INS: dict[str, dict[str, Any]] = {
    "chat, expose": {"path": CHAT, "ultra": {"expose": ["reasoning"]}},
    "chat, include": {"path": CHAT, "include_reasoning": True},
    "responses, expose": {"path": RESPONSES, "ultra": {"expose": ["reasoning"]}},
    "responses, summary": {"path": RESPONSES, "reasoning": {"summary": "auto"}},
    "messages, expose": {"path": MESSAGES, "ultra": {"expose": ["reasoning"]}},
    "messages, adaptive": {"path": MESSAGES, "thinking": {"type": "adaptive"}},
    "messages, enabled": {"path": MESSAGES, "thinking": {"type": "enabled", "budget_tokens": 2000}},
}


def panel() -> dict[str, FakeModel]:
    return {name: thinker(f"{name} thinks.") for name in ("a", "b")}


@pytest.mark.parametrize("name", OPT_INS)
async def test_the_reasoning_of_a_synthesis_is_told_who_asks_for_it(name: str) -> None:
    answer = await asked(service_of(panel()), model="council", **OPT_INS[name])
    assert told(answer) == [("thought", "a thinks."), ("text", "It is 2.")]


@every_protocol
async def test_nobody_else_gets_the_reasoning_of_an_ensemble(path: str) -> None:
    models = {name: FakeModel(FakeAnswer("It is 2.", reasoning=f"{name} thinks.")) for name in ("a", "b")}
    answer = await asked(service_of(models), path, "council")
    assert told(answer) == [("text", "It is 2.")]
    assert b"thinks" not in answer.body


@every_protocol
async def test_when_another_writes_its_reasoning_takes_the_place_of_that_of_the_first(
    path: str, autojump_clock: MockClock
) -> None:
    models = panel()
    models["a"] = FakeModel(lambda _: FakeAnswer("It is 2.", reasoning="a thinks."), piece_seconds=1)
    models["a"].fail(ModelError("broken", retryable=False), at=2, after_pieces=1)
    answer = await asked(service_of(models), path, "council", ultra={"expose": ["reasoning"]})
    thought, text = told(answer)
    assert thought[1].endswith("b thinks.")
    assert text == ("text", "It is 2.")
    if path == RESPONSES:
        output = answer.chunks[-1]["response"]["output"]
        assert [item["summary"][0]["text"] for item in output if item["type"] == "reasoning"] == ["b thinks."]


async def test_what_the_panel_thinks_reaches_no_prompt() -> None:
    models = panel()
    await asked(service_of(models), CHAT, "council", ultra={"expose": ["reasoning"]})
    prompts = [m.text for model in models.values() for call in model.calls for m in call.request.messages]
    assert not any("thinks." in prompt for prompt in prompts)


# --- kept and native runs --------------------------------------------------------------------------------


async def test_events_of_a_response_in_the_background_are_the_same_for_each_reader() -> None:
    service = service_of({"a": thinker(*SEALED)}, journal=MemoryJournal())
    async with service.running():
        first = await ask(service, body_for(RESPONSES, background=True), RESPONSES)
        name = first.chunks[0]["response"]["id"]
        again = await get(service, f"{RESPONSES}/{name}?stream=true")
        rest = await get(service, f"{RESPONSES}/{name}?stream=true&starting_after=4")
    assert told(first) == [("thought", "One and one."), ("text", "It is 2.")]
    assert again.chunks == first.chunks
    assert [event["sequence_number"] for event in first.chunks] == list(range(len(first.chunks)))
    assert rest.chunks == first.chunks[5:]


async def test_events_of_a_native_run_tell_the_reasoning() -> None:
    service = service_of({"a": thinker("Hm.")})
    async with service.running():
        answer = await ask(service, {"prompt": "1+1?", "models": ["a"], "stream": True}, "/v1/runs")
    kinds = [event["type"] for event in answer.chunks if event["type"] in {"reasoning", "chunk"}]
    assert kinds[0] == "reasoning"
    assert "chunk" in kinds
    thought = next(event for event in answer.chunks if event["type"] == "reasoning")
    assert thought["part"]["text"] == "Hm."


# --- tools: what was thought goes back -------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        SEALED,
        (ReasoningPart("hm", "deepseek"),),
        (ReasoningPart("One", "openai", encrypted="enc", id="rs_1"),),
    ],
    ids=["anthropic", "deepseek", "openai"],
)
async def test_what_was_thought_before_a_call_goes_back_as_it_came(parts: tuple[ReasoningPart, ...]) -> None:
    call = ToolCall("c1", "weather", '{"city":"Paris"}')
    model = FakeModel([FakeAnswer("I look.", tool_calls=(call,), reasoning_parts=parts), "Rain."])
    tool = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}

    def work(client: anthropic.Anthropic) -> Any:
        messages: Any = [{"role": "user", "content": "Q"}]
        tools: Any = [tool]
        with client.messages.stream(model="a", max_tokens=99, messages=messages, tools=tools) as stream:
            first = stream.get_final_message()
        result = {"type": "tool_result", "tool_use_id": "c1", "content": "Rain"}
        messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        client.messages.create(model="a", max_tokens=99, messages=messages, tools=tools)
        return [block.type for block in first.content]

    kinds = await in_thread(service_of({"a": model}), work, "anthropic")

    assert kinds[-2:] == ["text", "tool_use"]
    assert "thinking" in kinds
    turn = model.calls[1].request.messages[1]
    assert turn.parts == (*parts, TextPart("I look."))


# --- official clients ------------------------------------------------------------------------------------


async def test_openais_client_reads_reasoning_before_the_text() -> None:
    def work(client: openai.OpenAI) -> Any:
        messages: Any = [{"role": "user", "content": "1+1?"}]
        found = []
        for chunk in client.chat.completions.create(model="a", messages=messages, stream=True):
            delta: Any = chunk.choices[0].delta
            found += [("thought", delta.reasoning_content)] if hasattr(delta, "reasoning_content") else []
            found += [("text", delta.content)] if delta.content else []
        return found

    found = await in_thread(service_of({"a": thinker("One and one.")}), work, "openai")
    assert [kind for kind, _ in found] == sorted((kind for kind, _ in found), reverse=True)
    assert "".join(text for kind, text in found if kind == "thought") == "One and one."
    assert "".join(text for kind, text in found if kind == "text") == "It is 2."


async def test_openais_client_reads_the_events_of_a_response_in_their_order() -> None:
    def work(client: openai.OpenAI) -> Any:
        with client.responses.stream(model="a", input="1+1?") as stream:
            kinds = [event.type for event in stream]
            return kinds, stream.get_final_response()

    kinds, response = await in_thread(service_of({"a": thinker("One and one.")}), work, "openai")
    once = list(dict.fromkeys(kind for kind in kinds))
    assert once[2:9] == [
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "response.content_part.added",
    ]
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output[0].summary[0].text == "One and one."
    assert response.output_text == "It is 2."


async def test_anthropics_client_reads_thinking_before_the_text() -> None:
    def work(client: anthropic.Anthropic) -> Any:
        messages: Any = [{"role": "user", "content": "1+1?"}]
        with client.messages.stream(model="a", max_tokens=99, messages=messages) as stream:
            kinds = [event.type for event in stream]
            return kinds, stream.get_final_message()

    kinds, message = await in_thread(service_of({"a": thinker(*SEALED)}), work, "anthropic")
    once = list(dict.fromkeys(kinds))
    assert once.index("thinking") < once.index("signature") < once.index("text")
    assert [block.type for block in message.content] == ["thinking", "redacted_thinking", "text"]
    assert (message.content[0].thinking, message.content[0].signature) == ("One and one.", "sig")
    assert message.content[2].text == "It is 2."


# --- tools -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [False, True], ids=["without a call", "with a call"])
@every_protocol
async def test_one_model_with_tools_streams_as_one_without(
    path: str, autojump_clock: MockClock, *, calls: bool
) -> None:
    parameters = {"type": "object", "properties": {}}
    function = {"name": "weather", "parameters": parameters}
    tools: dict[str, list[dict[str, Any]]] = {
        CHAT: [{"type": "function", "function": function}],
        RESPONSES: [{"type": "function", **function}],
        MESSAGES: [{"name": "weather", "input_schema": parameters}],
    }
    more: Any = {"tool_calls": (ToolCall("call-of-weather", "weather", "{}"),)} if calls else {}
    service = service_of({"a": thinker("One two.", piece_seconds=1, **more)})
    answer = await asked(service, path, tools=tools[path])
    assert told(answer) == [("thought", "One two."), ("text", "It is 2.")]
    for text, second in {b"One ": 0, b"two.": 1, b'"It ': 2, b"is ": 3}.items():
        when = next(moment for moment, piece in answer.pieces if text in piece)
        assert when == pytest.approx(second, abs=0.01)
    assert (b"call-of-weather" in answer.body) == calls
