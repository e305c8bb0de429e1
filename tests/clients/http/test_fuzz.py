"""Mutated exchanges: a client ends, raises nothing but `ModelError`, and makes nothing up."""

from __future__ import annotations

import json
import random
import re
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import httpx
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.byte_server import events
from helpers.recordings import Recording, load
from ultra.clients import AnthropicClient, GeminiClient, HTTPClient, HTTPLimits, OllamaClient, OpenAIClient
from ultra.clients.dialects.openai_responses import OpenAIResponses
from ultra.clients.wire.response_head import ResponseHead
from ultra.clients.wire.text_repair import repaired
from ultra.errors import ModelError
from ultra.messages.results import Completion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


def responses_client(model: str, *, provider: str, base_url: str, **settings: Any) -> HTTPClient:
    return HTTPClient(OpenAIResponses(model, provider=provider, base_url=base_url), **settings)


def delta(fields: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


CLIENTS: dict[str, Callable[..., HTTPClient]] = {
    "openai-responses": responses_client,
    "openai-chat": OpenAIClient,
    "anthropic-messages": AnthropicClient,
    "gemini-generate": GeminiClient,
    "ollama-chat": OllamaClient,
}

CALLS: dict[str, list[Any]] = {
    "openai-chat": [
        delta({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}]}),
        delta({"tool_calls": [{"index": 0, "function": {"arguments": '{"x": "h\ud83d'}}]}),
        delta({"tool_calls": [{"index": 0, "function": {"arguments": '\ude00i"}'}}]}),
        delta({"tool_calls": [{"id": "c2", "function": {"name": "g", "arguments": {"y": [1]}}}]}),
        delta({"function_call": {"name": "f", "arguments": "{}"}}, "tool_calls"),
        "[DONE]",
    ],
    "anthropic-messages": [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "c1", "name": "f"},
        },
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": '{"x'},
        },
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": '": 1}'},
        },
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}},
    ],
    "gemini-generate": [
        {"candidates": [{"content": {"parts": [{"text": "hm", "thought": True}]}}]},
        {
            "candidates": [
                {
                    "content": {
                        "parts": [
                            {"functionCall": {"name": "f", "args": {"x": "y"}}, "thoughtSignature": "s"},
                            {"functionCall": {"name": "g", "id": "c2"}},
                        ]
                    },
                    "finishReason": "STOP",
                }
            ]
        },
    ],
    "ollama-chat": [
        {"message": {"tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}},
        {"message": {"tool_calls": [{"id": "c2", "function": {"name": "g", "arguments": '{"y": 2}'}}]}},
        {"done": True, "done_reason": "stop"},
    ],
    "openai-responses": [
        {
            "type": "response.output_item.added",
            "item": {"type": "function_call", "call_id": "c1", "name": "f"},
        },
        {"type": "response.function_call_arguments.delta", "delta": '{"x": 1}'},
        {
            "type": "response.output_item.done",
            "item": {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'},
        },
        {"type": "response.output_text.delta", "delta": "Hi"},
        {
            "type": "response.output_item.done",
            "item": {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "e"},
        },
        {"type": "response.completed", "response": {"status": "completed", "output": []}},
    ],
}

# Enough to mutate where the recorded exchanges are absent.
SEEDS = [
    Recording(
        name="openai",
        provider="p",
        dialect="openai-chat",
        status=200,
        headers=[("content-type", "text/event-stream")],
        body=events(
            {"choices": [{"index": 0, "delta": {"content": "Hé"}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": "llo"}]}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}},
            "[DONE]",
        ),
        expect={},
        streamed=True,
    ),
    Recording(
        name="anthropic",
        provider="p",
        dialect="anthropic-messages",
        status=529,
        headers=[("content-type", "application/json"), ("retry-after", "1")],
        body=b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
        expect={},
        streamed=False,
    ),
    *(
        Recording(
            name=f"calls-{dialect}",
            provider="p",
            dialect=dialect,
            status=200,
            headers=[("content-type", "text/event-stream")],
            body=events(*pieces),
            expect={},
            streamed=True,
        )
        for dialect, pieces in CALLS.items()
    ),
]

VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    "",
    "x",
    "[DONE]",
    "error",
    [],
    {},
    [[]],
    [None],
    [{}],
    {"message": {}},
]

SNIPPETS = [
    *(b"\n", b"\r", b"\n\n", b"data: ", b"data:", b"event: error\n", b": \n", b"[DONE]", b"<html>"),
    *(b"null", b"{}", b"[]", b'""', b'"', b"\\", b"{", b"}", b'"error":1,', b"1e999", b"[" * 3000),
    *(b"\xff", b"\xe2\x80\xa8", b"\\ud800", b"\x00"),
]


@cache
def seeds() -> list[Recording]:
    return [*SEEDS, *(each for each in load() if len(each.body) < 10_000)]


def mutated(recording: Recording, random: random.Random) -> bytes:
    body = recording.body
    for _ in range(random.randint(1, 4)):
        body = random.choice([cut, doubled, replaced, spliced, grafted, grafted, grafted])(body, random)
    return body


def span(body: bytes, random: random.Random) -> tuple[int, int]:
    start = random.randint(0, len(body))
    return start, min(len(body), start + int(random.expovariate(1 / 20)))


def cut(body: bytes, random: random.Random) -> bytes:
    start, end = span(body, random)
    return body[:start] + body[end:] if random.random() < 0.8 else body[:start]


def doubled(body: bytes, random: random.Random) -> bytes:
    start, end = span(body, random)
    return body[:end] + body[start:end] + body[end:]


def replaced(body: bytes, random: random.Random) -> bytes:
    start, end = span(body, random)
    return body[:start] + random.randbytes(end - start) + body[end:]


def spliced(body: bytes, random: random.Random) -> bytes:
    start, end = span(body, random)
    return body[:start] + random.choice(SNIPPETS) + body[random.choice([start, end]) :]


def grafted(body: bytes, random: random.Random) -> bytes:
    """Put another value in place of one somewhere inside one of the body's JSON texts."""
    texts = list(re.finditer(rb"\{.*\}", body)) or list(re.finditer(rb"(?s)\{.*\}", body))
    if not texts:
        return body
    text = random.choice(texts)
    try:
        value = json.loads(text[0])
    except (ValueError, RecursionError):
        return body
    places = list(inside(value))
    if not places:
        return body
    holder, key = random.choice(places)
    holder[key] = random.choice(VALUES)
    return (
        body[: text.start()]
        + json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        + body[text.end() :]
    )


def inside(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from inside(value[key])


def strings_in(body: bytes) -> set[str]:
    """Every JSON string in `body`, wherever a quotation mark may begin one."""
    found = set()
    text = body.decode("utf-8", "replace")
    for start in (match.start() for match in re.finditer('"', text)):
        try:
            found.add(json.JSONDecoder(strict=False).raw_decode(text, start)[0])
        except ValueError:
            continue
    return found | {repaired(each) for each in found if isinstance(each, str)}


def is_made_of(text: str, parts: set[str]) -> bool:
    reached = {0}
    for start in range(len(text)):
        if start in reached:
            reached |= {start + len(part) for part in parts if part and text.startswith(part, start)}
    return len(text) in reached


def client_of(recording: Recording, **settings: Any) -> HTTPClient:
    kind = CLIENTS[recording.dialect]
    return kind("m", provider=recording.provider, base_url="http://127.0.0.1:1", **settings)


def pieces_of(client: HTTPClient, recording: Recording, body: bytes, size: int) -> Iterator[str | Completion]:
    """What the client makes of `body`, without a network."""
    head = ResponseHead(recording.provider, recording.status, dict(recording.headers))
    if recording.status != 200:
        raise head.failure(body)
    if not recording.streamed:
        completion = client.dialect.decode(body, head)
        yield completion.content
        yield completion
        return
    decoder = client.dialect.decoder(head)
    for start in range(0, len(body), size):
        yield from decoder.feed(body[start : start + size])
        if decoder.terminated:
            break
    else:
        yield from decoder.flush()
    yield decoder.completion()


def check(pieces: list[str | Completion], body: bytes) -> None:
    texts = [piece for piece in pieces if isinstance(piece, str)]
    strings = strings_in(body)
    for text in texts:
        text.encode()
        assert is_made_of(text, strings), f"{text!r} was not there"
    if pieces and isinstance(completion := pieces[-1], Completion):
        assert completion.content == "".join(texts)
        calls = completion.tool_calls
        assert len({call.id for call in calls}) == len(calls)
        assert (completion.finish_reason == "tool_calls") <= bool(calls)
        for call in calls:
            assert is_made_of(call.name, strings)
            (call.id + call.arguments).encode()
        for part in completion.reasoning_parts:
            assert (part.signature or part.encrypted or part.text) in strings or is_made_of(
                part.text, strings
            )
        if completion.usage is not None:
            assert all((count or 0) >= 0 for count in (completion.usage.input, completion.usage.output))


@settings(max_examples=400)
@given(seed=st.integers(0, 2**32), size=st.sampled_from([1, 7, 100, 10_000]))
@example(seed=0, size=7)
def test_no_answer_makes_a_decoder_raise_anything_else_or_invent_text(seed: int, size: int) -> None:
    source = random.Random(seed)
    recording = source.choice(seeds())
    body = mutated(recording, source)
    pieces: list[str | Completion] = []
    with suppress(ModelError):
        pieces.extend(pieces_of(client_of(recording), recording, body, size))
    check(pieces, body)


def test_the_check_for_invented_text_finds_it() -> None:
    strings = strings_in(b'{"content": "made", "text": " of"}')
    assert is_made_of("made of", strings)
    assert not is_made_of("made up", strings)


class Answering(httpx.AsyncBaseTransport):
    """Answers with `pieces`, and breaks off where one is an exception."""

    def __init__(self, status: int, headers: list[tuple[str, str]], pieces: list[bytes | Exception]) -> None:
        self.status, self.headers, self.pieces = status, headers, pieces

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        return httpx.Response(self.status, headers=self.headers, stream=Pieces(self.pieces))


class Pieces(httpx.AsyncByteStream):
    def __init__(self, pieces: list[bytes | Exception]) -> None:
        self.pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            await trio.lowlevel.checkpoint()
            if isinstance(piece, Exception):
                raise piece
            yield piece


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), streamed=st.booleans())
def test_no_answer_makes_a_call_hang_or_raise_anything_else(seed: int, *, streamed: bool) -> None:
    source = random.Random(seed)
    recording = source.choice(seeds())
    body = mutated(recording, source)
    cuts = sorted(source.randrange(len(body) + 1) for _ in range(source.randrange(5)))
    pieces: list[bytes | Exception] = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    if source.random() < 0.2:
        pieces.insert(source.randrange(len(pieces)), httpx.ReadError("lost"))
    headers = source.choice([recording.headers, [("content-type", "application/json")], []])
    status = source.choice([recording.status, 200, 200, 204, 302, 404, 429, 500, 599])
    trio.run(partial(ask, recording, Answering(status, headers, pieces), body, streamed=streamed))


async def ask(recording: Recording, transport: Answering, body: bytes, *, streamed: bool) -> None:
    client = client_of(recording, transport=transport, limits=HTTPLimits(max_response_bytes=50_000))
    pieces: list[str | Completion] = []
    with suppress(ModelError), trio.fail_after(60):
        if streamed:
            async for piece in client.stream("Hi"):
                pieces.append(piece)  # noqa: PERF401 - those before an error count, too
        else:
            completion = await client.generate("Hi")
            pieces = [completion.content, completion]
    await client.aclose()
    check(pieces, body)
