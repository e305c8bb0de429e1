"""Bodies that no client sends: wrong types in every place. Each is refused in the shape of its protocol."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.service_protocols import MESSAGES, PATHS, PIXEL, RESPONSES, question
from helpers.services import CHAT, Answer, ask, service_of
from ultra.service.core import Service
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT = "/v1/messages/count_tokens"

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
EXTENSION: dict[str, Any] = {
    "plugins": [
        {"id": "fusion", "enabled": False, "analysis_models": ["a"], "model": "a", "preset": "council"}
    ],
    "ultra": {"panel": ["a"], "judge": "a", "analysts": "none", "quorum": 1, "grace": 1, "expose": ["panel"]},
}
FULL: dict[str, dict[str, Any]] = {
    CHAT: {
        **question(CHAT, "council"),
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Q"}]},
            {
                "role": "assistant",
                "content": "x",
                "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "c", "content": "y"},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                    {
                        "type": "file",
                        "file": {"file_data": "data:text/plain;base64,SGVsbG8=", "filename": "a"},
                    },
                ],
            },
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
        "temperature": 0.5,
        "max_completion_tokens": 9,
        "stop": ["x"],
        "stream": False,
        "stream_options": {"include_usage": True},
        **EXTENSION,
    },
    RESPONSES: {
        "model": "council",
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Q"}]},
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "t"}]},
            {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "ultra1.xx"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "x"}]},
            {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "y"}]},
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "low"},
                    {"type": "input_file", "file_data": "data:text/plain;base64,SGVsbG8=", "filename": "a"},
                ],
            },
        ],
        "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA}],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "weather"}]},
        "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "metadata": {"a": "b"},
        "max_output_tokens": 9,
        "temperature": 0.5,
        "truncation": "auto",
        "stream": False,
        **EXTENSION,
    },
    MESSAGES: {
        "model": "council",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Q"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "t", "signature": "ultra1.xx"},
                    {"type": "redacted_thinking", "data": "ultra1.xx"},
                    {"type": "text", "text": "x"},
                    {"type": "tool_use", "id": "c", "name": "weather", "input": {"a": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "y"}]},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
                    },
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "z"}},
                ],
            },
        ],
        "tools": [{"name": "weather", "input_schema": SCHEMA}],
        "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "stop_sequences": ["x"],
        "temperature": 0.5,
        "stream": False,
        **EXTENSION,
    },
}
FULL[COUNT] = FULL[MESSAGES]

WRONG: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 10**30, "", "x", "\u0000", [], [[]], [None], {}, {"type": "x"}, {"a": {}}),
    *([{"type": "text"}], "data:image/png;base64,xx", "ultra1.////"),
)


def service() -> Service:
    return service_of({"a": FakeModel('{"city": "Paris"}'), "b": FakeModel('{"city": "Lyon"}')})


def checked(path: str, answer: Answer) -> None:
    """An answer, or a refusal, in the shape of the protocol; never a fault of the service."""
    assert answer.status in {200, 400, 404, 422}, answer.body
    if answer.status == 200:
        return
    error = answer.error
    assert isinstance(error["message"], str)
    if path in {MESSAGES, COUNT}:
        assert set(answer.json) == {"type", "error", "request_id"}
        assert error["type"] in {"invalid_request_error", "not_found_error"}
    else:
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a body."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places(each, (*path, key))


def with_wrong(body: dict[str, Any], place: tuple[Any, ...], wrong: object) -> dict[str, Any]:
    changed = deepcopy(body)
    inner: Any = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = wrong
    return changed


@pytest.mark.parametrize("path", [*PATHS, COUNT])
async def test_the_full_body_is_answered(path: str) -> None:
    running = service()
    async with running.running():
        answer = await ask(running, FULL[path], path)

    assert answer.status == 200, answer.body


@pytest.mark.parametrize("path", [*PATHS, COUNT])
async def test_a_wrong_value_in_any_place_is_refused_and_never_a_fault_of_the_service(path: str) -> None:
    running = service()
    body = FULL[path]
    async with running.running():
        for place in places(body):
            for wrong in WRONG:
                checked(path, await ask(running, with_wrong(body, place, wrong), path))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("role", WRONG)
async def test_a_wrong_role_ahead_of_instructions_is_refused(path: str, role: object) -> None:
    running = service()
    turns = [{"role": role, "content": "Q"}, {"role": "system", "content": "Be brief."}]
    body = question(path, "a") | {"input" if path == RESPONSES else "messages": turns}
    async with running.running():
        answer = await ask(running, body, path)

    assert answer.status == 400
    checked(path, answer)


@pytest.mark.parametrize("path", [*PATHS, COUNT])
@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b'"x"', b"{", b'{"model": NaN}', b'{"model": "\xff"}', b"[" * 100_000, b'{"a":1}'],
)
async def test_what_is_no_request_at_all_is_refused_in_the_shape_of_the_protocol(
    path: str, data: bytes
) -> None:
    running = service()
    async with running.running():
        answer = await ask(running, data, path)

    assert answer.status == 400
    checked(path, answer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("path", [*PATHS, COUNT])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_arbitrary_json_in_any_place_is_never_a_fault_of_the_service(path: str, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(list(places(FULL[path]))))
    body = json.dumps(with_wrong(FULL[path], place, data.draw(JSON))).encode()

    async def one() -> Answer:
        running = service()
        async with running.running():
            return await ask(running, body, path)

    checked(path, trio.run(one))


@pytest.mark.parametrize("path", [*PATHS, COUNT])
async def test_a_body_of_very_many_lists_is_refused_before_it_is_decoded(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ultra.messages.bounded_json.MOST_VALUES", 1_000)
    running = service()
    async with running.running():
        answer = await ask(running, {**FULL[path], "more": [[]] * 2_000}, path)

    assert answer.status == 400
    assert b"too many objects and lists" in answer.body
    checked(path, answer)
