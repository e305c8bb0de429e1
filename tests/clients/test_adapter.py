"""Clients of every shape, adapted to one form: what they are asked, and what they answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import AsyncMock

import msgspec
import pytest

from helpers.adapted_clients import (
    QUESTION,
    USAGE,
    CallableObject,
    Client,
    Streaming,
    Synchronous,
    decorated,
    failure_of,
    generate,
)
from ultra.clients.adapter import ClientAdapter
from ultra.clients.protocol import RequestClient
from ultra.clients.wire.rate_limits import RateLimits
from ultra.errors import BadCall, ModelError
from ultra.messages.chat import ChatMessage
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.messages.results import Completion, FinishReason, Usage
from ultra.messages.tokens import estimate_request, estimate_tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


T = TypeVar("T")


# --- what may be adapted -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "named"),
    [
        (None, "NoneType"),
        ("openai:gpt", "connect"),
        (SimpleNamespace(generate="text"), "SimpleNamespace"),
        (Client, "instance of Client"),
        (lambda: "x", "no prompt"),
        (lambda prompt, model: "x", "model"),
    ],
)
def test_a_client_that_cannot_be_asked_is_refused_with_a_reason(client: object, named: str) -> None:
    with pytest.raises(BadCall, match=named):
        ClientAdapter(client)


def test_a_generate_that_yields_is_refused() -> None:
    class Yields:
        async def generate(self, prompt: str) -> AsyncIterator[str]:
            yield prompt

    with pytest.raises(BadCall, match="yields pieces"):
        ClientAdapter(Yields())


def test_neither_the_refusal_nor_the_repr_shows_the_client_itself() -> None:
    class Secretive(Client):
        def __repr__(self) -> str:
            return "key=topsecret"

    class Useless:
        def __repr__(self) -> str:
            return "key=topsecret"

    assert "topsecret" not in repr(ClientAdapter(Secretive("x")))
    with pytest.raises(BadCall) as caught:
        ClientAdapter(Useless())
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize(("value", "window"), [(4096, 4096), (0, None), (True, None), ("big", None)])
def test_the_context_window_is_the_clients_own_if_it_is_a_number(value: object, window: int | None) -> None:
    client = Client("x")
    vars(client)["context_window"] = value

    assert ClientAdapter(client).context_window == window
    assert ClientAdapter(Client("x")).context_window is None


# --- asking --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "client",
    [
        pytest.param(SimpleNamespace(generate=generate), id="object"),
        pytest.param(generate, id="coroutine function"),
        pytest.param(decorated, id="function around a coroutine function"),
        pytest.param(CallableObject(), id="object with async __call__"),
        pytest.param(Synchronous(), id="synchronous object"),
        pytest.param(lambda prompt: f"answer to {prompt}", id="synchronous function"),
        pytest.param(lambda prompt: Completion(content=f"answer to {prompt}"), id="Completion"),
        pytest.param(AsyncMock(return_value="answer to Q", spec=["__call__"]), id="callable mock"),
        pytest.param(SimpleNamespace(generate=AsyncMock(return_value="answer to Q")), id="mocked method"),
    ],
)
async def test_clients_of_every_shape_answer_in_one_form(client: object) -> None:
    completion = await ClientAdapter(client).call(QUESTION)

    assert completion.content == "answer to Q"


async def test_a_mock_with_every_attribute_is_not_taken_for_a_client_that_streams() -> None:
    client = AsyncMock()
    client.generate.return_value = "answer"
    adapter = ClientAdapter(client)

    assert not adapter.streams
    assert (await adapter.call(QUESTION, on_text=lambda _: None)).content == "answer"


async def test_options_that_are_declared_are_passed_and_others_are_not() -> None:
    received: dict[str, Any] = {}

    async def client(prompt: str, *, system: str | None = None, temperature: float = 1.0) -> str:
        received.update(prompt=prompt, system=system, temperature=temperature)
        return "x"

    adapter = ClientAdapter(client)
    await adapter.call(ModelRequest.of("Q", "S", SamplingOptions(temperature=0.2, seed=1)))

    assert adapter.takes_system
    assert received == {"prompt": "Q", "system": "S", "temperature": 0.2}


async def test_a_client_without_a_system_parameter_gets_the_system_prompt_ahead_of_the_prompt() -> None:
    adapter = ClientAdapter(generate)

    assert not adapter.takes_system
    assert (await adapter.call(ModelRequest.of("Q", "S"))).content == "answer to S\n\nQ"


async def test_a_completion_comes_back_as_it_is() -> None:
    given = Completion(content="x", usage=USAGE, finish_reason="length", request_id="r", model="m")

    assert await ClientAdapter(Client(given)).call(QUESTION) is given


@pytest.mark.parametrize("usage", [None, Usage()])
async def test_usage_is_estimated_and_marked_so_when_the_client_reports_none(usage: Usage | None) -> None:
    completion = await ClientAdapter(Client(Completion(content="four words of text", usage=usage))).call(
        ModelRequest.of("Q", "be brief")
    )

    assert completion.usage is not None
    assert completion.usage.estimated
    assert completion.usage.input
    assert completion.usage.output


@pytest.mark.parametrize("usage", [Usage(input=3), Usage(output=5)])
async def test_of_usage_that_is_reported_in_part_the_rest_is_estimated(usage: Usage) -> None:
    completion = await ClientAdapter(Client(Completion(content="x", usage=usage))).call(QUESTION)

    assert completion.usage is not None
    assert completion.usage.estimated
    assert completion.usage.input == (usage.input or estimate_request(QUESTION))
    assert completion.usage.output == (usage.output or 1)


async def test_a_part_of_the_tokens_is_never_above_all_of_them() -> None:
    told = Usage(input=10, output=4, cached=30, reasoning=400)

    completion = await ClientAdapter(Client(Completion(content="x", usage=told))).call(QUESTION)

    assert completion.usage == Usage(input=40, output=404, cached=30, reasoning=400, estimated=True)


@pytest.mark.parametrize(
    "usage", [Usage(input=0, output=0), Usage(input=0), Usage(output=0), Usage(input=7, output=0)]
)
async def test_counts_of_zero_beside_a_text_are_estimated(usage: Usage) -> None:
    completion = await ClientAdapter(Client(Completion(content="four words of text", usage=usage))).call(
        QUESTION
    )

    found = completion.usage
    assert found is not None
    assert found.estimated
    assert 0 not in {found.input, found.output}
    assert (found.input == 7) == (usage.input == 7), "a count that can be true stays"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("four \ud83d", "four \ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
        ("\ude00 four", "\ufffd four"),
        ("fo\0ur", "fo\ufffdur"),
        ("vier \u20ac", "vier \u20ac"),
    ],
)
async def test_text_that_cannot_be_encoded_is_repaired(written: str, read: str) -> None:
    whole = await ClientAdapter(Client(written)).call(QUESTION)
    told = await ClientAdapter(Client(Completion(content="x" + written, reasoning=written))).call(QUESTION)
    pieces: list[str] = []
    streamed = await ClientAdapter(Streaming(*written)).call(QUESTION, on_text=pieces.append)

    assert whole.content == streamed.content == "".join(pieces) == read
    assert (told.content, told.reasoning) == ("x" + read, read)
    with pytest.raises(ModelError) as refused:
        await ClientAdapter(Client(Completion(content="", refusal=written))).call(QUESTION)
    assert read in str(refused.value)


class Text(str):
    """Text of a subclass whose methods lie or raise."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("not this one")

    def __bool__(self) -> bool:
        raise RuntimeError("nor this one")

    def strip(self, *_: Any) -> Any:
        return None


class MoreThanACompletion(Completion, frozen=True, kw_only=True):
    extra: object = None


@pytest.mark.parametrize(
    "given",
    [
        Completion(content="x", usage={"input": 1}),  # type: ignore[arg-type]
        Completion(content="x", usage=Usage(input="12", output=[])),  # type: ignore[arg-type]
        Completion(content="x", usage=Usage(input=-(10**9), output=float("nan"))),  # type: ignore[arg-type]
        Completion(content="x", usage=Usage(input=2**80, output=2**32 - 1)),
        Completion(content="x", usage=Usage(input=True, output=None)),
        Completion(content="x", finish_reason="weird"),  # type: ignore[arg-type]
        Completion(content="x", finish_reason=["stop"]),  # type: ignore[arg-type]
        Completion(content="x", finish_reason=object()),  # type: ignore[arg-type]
        Completion(content="x", request_id=object(), model=7, reasoning=b"r", refusal=[]),  # type: ignore[arg-type]
        Completion(content=Text("x"), model=Text("m"), reasoning=Text("so")),
        MoreThanACompletion(content="x", extra=object()),
        Text("x"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_whatever_a_client_gives_beside_the_text_the_answer_is_a_value(
    given: object, *, streamed: bool
) -> None:
    client = Streaming(given) if streamed else Client(given)
    answer = await ClientAdapter(client).call(QUESTION, on_text=(lambda _: None) if streamed else None)
    assert answer.content == "x"
    assert type(answer.content) is str
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=Completion) == answer
    assert answer.usage is not None
    assert answer.usage.estimated
    assert answer.finish_reason == ("other" if getattr(given, "finish_reason", None) == "weird" else None)


@pytest.mark.parametrize(
    ("word", "reason"),
    [("max_tokens", "length"), ("MAX_TOKENS", "length"), ("end_turn", "stop")],
)
async def test_finish_reasons_in_the_words_of_other_apis_are_understood(word: Any, reason: str) -> None:
    answer = await ClientAdapter(Client(Completion(content="x", finish_reason=word))).call(QUESTION)
    assert answer.finish_reason == reason


async def test_an_answer_that_a_filter_cut_is_none() -> None:
    with pytest.raises(ModelError, match="content_filter") as caught:
        await ClientAdapter(Client(Completion(content="x", finish_reason="SAFETY"))).call(QUESTION)  # type: ignore[arg-type]
    assert caught.value.kind == "content"


async def test_characters_that_cannot_be_encoded_are_replaced_and_halves_are_joined() -> None:
    whole = await ClientAdapter(Client("a \ud83d b")).call(QUESTION)
    assert whole.content == "a \ufffd b"
    halves = Streaming("\ud83d", "\ude00")
    assert (await ClientAdapter(halves).call(QUESTION, on_text=lambda _: None)).content == "\U0001f600"


class Unreadable:
    """A client whose attributes raise."""

    async def generate(self, prompt: str) -> str:
        return "x"

    @property
    def rate_limits(self) -> None:
        raise RuntimeError("rate_limits")

    @property
    def context_window(self) -> None:
        raise RuntimeError("context_window")


def test_attributes_of_a_client_that_raise_say_nothing() -> None:
    adapter = ClientAdapter(Unreadable())
    assert adapter.rate_limits is None
    assert adapter.context_window is None


@pytest.mark.parametrize("number", [0, -1, float("nan"), float("inf"), 2**2000, "60", True, object()])
def test_announced_limits_of_wrong_types_or_out_of_range_are_none(number: Any) -> None:
    client = Client("x")
    client.rate_limits = RateLimits(  # type: ignore[attr-defined]
        requests_per_minute=number, requests_remaining=number, tokens_per_minute=number, tokens_remaining=3
    )
    found = ClientAdapter(client).rate_limits
    assert found is not None
    assert found.requests_per_minute is found.tokens_per_minute is None
    assert found.requests_remaining in {None, 0}
    assert found.tokens_remaining == 3


@pytest.mark.parametrize("answer", ["", " \n\t", Completion(content=""), Completion(content="\u3000")])
async def test_an_empty_answer_is_a_failure_worth_a_retry(answer: object) -> None:
    failure = await failure_of(Client(answer))

    assert (failure.kind, failure.retryable) == ("content", True)


@pytest.mark.parametrize("reason", ["content_filter", "refusal", "length", "tool_calls"])
async def test_an_empty_answer_that_would_be_empty_again_is_permanent(reason: FinishReason) -> None:
    failure = await failure_of(Client(Completion(content="", finish_reason=reason, request_id="r")))

    assert (failure.kind, failure.retryable, failure.request_id) == ("content", False, "r")


async def test_what_a_model_says_in_place_of_an_answer_is_told() -> None:
    refused = Completion(content="", finish_reason="refusal", refusal="I can't help with that.")

    assert "(finish reason: refusal): I can't help with that." in (await failure_of(Client(refused))).message


@pytest.mark.parametrize("answer", [None, b"bytes", 7, {"content": "x"}, ["x"]])
async def test_an_answer_of_another_type_is_a_permanent_failure_that_names_it(answer: object) -> None:
    failure = await failure_of(Client(answer))

    assert (failure.kind, failure.retryable) == ("protocol", False)
    assert type(answer).__name__ in failure.message


async def test_a_completion_whose_content_is_no_text_is_a_permanent_failure() -> None:
    failure = await failure_of(Client(Completion(content=None)))  # type: ignore[arg-type]

    assert (failure.kind, failure.retryable) == ("protocol", False)


def reset(prompt: str) -> str:
    raise ConnectionResetError(prompt)


async def reset_async(prompt: str) -> str:
    return reset(prompt)


@pytest.mark.parametrize("client", [reset, reset_async, Streaming(ConnectionResetError("Q"))])
async def test_an_exception_of_the_client_is_classified_with_the_original_as_its_cause(
    client: object,
) -> None:
    failure = await failure_of(client, on_text=lambda _: None)

    assert failure.kind == "connection"
    assert isinstance(failure.__cause__, ConnectionResetError)
    assert failure.__cause__.args == ("Q",)


async def test_a_model_error_of_the_client_passes_unchanged() -> None:
    original = ModelError("slow down", kind="rate_limit", retry_after=2.0)

    assert await failure_of(Streaming(original), on_text=lambda _: None) is original


# --- clients that take the whole request -----------------------------------------------------------


class Asked:
    """Takes requests; `stream_response` streams two pieces."""

    def __init__(self) -> None:
        self.requests: list[ModelRequest] = []

    async def respond(self, request: ModelRequest) -> str:
        self.requests.append(request)
        return "whole"

    async def stream_response(self, request: ModelRequest) -> AsyncIterator[str]:
        self.requests.append(request)
        yield "one "
        yield "two"


class AskedByPrompt(Asked):
    """As somebody writes it who has only the guide, around a client of Ultra's own."""

    async def generate(self, prompt: str) -> str:
        return f"overridden for {prompt}"


HISTORY = ModelRequest(
    messages=(
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "What is the capital of France?"),
        ChatMessage("assistant", "Paris."),
        ChatMessage("user", "And of Spain?"),
    ),
    options=SamplingOptions(seed=7, extra={"style": "formal"}),
)


async def test_a_client_that_takes_requests_gets_the_request_itself() -> None:
    client = Asked()
    adapter = ClientAdapter(client)
    assert isinstance(client, RequestClient)

    assert (await adapter.call(HISTORY)).content == "whole"
    assert (await adapter.call(HISTORY, on_text=lambda _: None)).content == "one two"

    assert (adapter.takes_system, adapter.streams) == (True, True)
    assert [request is HISTORY for request in client.requests] == [True, True]


async def test_a_client_that_takes_requests_need_not_stream() -> None:
    class Whole:
        stream_response = None

        async def respond(self, request: ModelRequest) -> str:
            return "whole"

    client: RequestClient = Whole()
    adapter = ClientAdapter(client)

    assert isinstance(client, RequestClient)
    assert not adapter.streams
    assert (await adapter.call(QUESTION, on_text=lambda _: None)).content == "whole"


async def test_a_method_called_respond_alone_makes_no_client_that_takes_requests() -> None:
    class Bot(Client):
        async def respond(self, message: str) -> str:
            raise AssertionError

    assert (await ClientAdapter(Bot("x")).call(QUESTION)).content == "x"


@pytest.mark.parametrize("where", ["subclass", "object"])
async def test_a_generate_that_is_overridden_is_called(where: str) -> None:
    client: Asked = AskedByPrompt()
    if where == "object":
        client = Asked()
        vars(client)["generate"] = AskedByPrompt().generate

    assert (await ClientAdapter(client).call(QUESTION)).content == "overridden for Q"


async def test_a_client_that_takes_requests_is_fenced_as_every_other() -> None:
    class Broken(Asked):
        async def respond(self, request: ModelRequest) -> str:
            raise ConnectionResetError

        async def stream_response(self, request: ModelRequest) -> AsyncIterator[str]:
            yield "one "
            raise ConnectionResetError

    assert (await failure_of(Broken())).kind == "connection"
    assert (await failure_of(Broken(), on_text=lambda _: None)).kind == "connection"


async def test_all_messages_of_a_request_count_in_an_estimate() -> None:
    few, many = [await ClientAdapter(Asked()).call(request) for request in (QUESTION, HISTORY)]

    assert few.usage is not None
    assert many.usage is not None
    assert few.usage.input == estimate_tokens("Q")
    assert many.usage.input == sum(estimate_tokens(message.text) for message in HISTORY.messages)


async def test_other_clients_get_a_conversation_as_text_with_the_roles_named() -> None:
    received: list[object] = []

    async def client(prompt: str, *, system: str, style: str = "", temperature: float = 1.0) -> str:
        received.extend([prompt, system, style, temperature])
        return "x"

    await ClientAdapter(client).call(HISTORY)

    assert received == [
        "User: What is the capital of France?\n\nAssistant: Paris.\n\nUser: And of Spain?",
        "Be brief.",
        "formal",
        1.0,
    ]
