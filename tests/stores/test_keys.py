"""The key of an answer: equal requests share it, different requests never do."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.errors import BadCall
from ultra.messages.chat import ChatMessage
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.messages.schema import JsonSchema
from ultra.messages.tools import Tool
from ultra.stores.keys import cache_key


def key(prompt: str, system: str | None = None, options: dict[str, Any] | None = None) -> bytes:
    return cache_key(ModelRequest.of(prompt, system, SamplingOptions.of(options)))


def key_of_extra(**extra: Any) -> bytes:
    return cache_key(ModelRequest.of("p", options=SamplingOptions(extra=extra)))


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([0.5, 1.0, -1.0])
    | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=6,
)
option_sets = st.dictionaries(st.text("abc", min_size=1, max_size=2), json_like, max_size=4)
requests = st.tuples(st.text("ab\x00[", max_size=4), st.none() | st.text("ab", max_size=3), option_sets)


def shape(value: Any) -> Any:
    """`value` in a form whose equality tells apart True, 1 and 1.0, as JSON does."""
    if isinstance(value, dict):
        return ("map", frozenset((key, shape(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return ("list", tuple(map(shape, value)))
    return (type(value), value)


@given(requests, requests)
def test_two_requests_have_the_same_key_only_if_they_are_the_same(one: Any, other: Any) -> None:
    assert (key(*one) == key(*other)) == (shape(one) == shape(other))


@given(option_sets, st.randoms(use_true_random=False))
def test_the_order_of_options_does_not_matter(options: dict[str, Any], random: Any) -> None:
    shuffled = list(options.items())
    random.shuffle(shuffled)
    assert key("p", None, options) == key("p", None, dict(shuffled))


def test_the_order_of_nested_mappings_and_sets_does_not_matter() -> None:
    one = {"body": {"a": 1, "b": {"x", "y", "z"}}}
    other = {"body": {"b": {"z", "x", "y"}, "a": 1}}
    assert key("p", None, one) == key("p", None, other)


def test_the_order_of_a_schema_matters_since_a_model_writes_in_it() -> None:
    first = {"type": "object", "properties": {"reasons": {"type": "string"}, "answer": {"type": "string"}}}
    last = {"type": "object", "properties": {"answer": {"type": "string"}, "reasons": {"type": "string"}}}
    request = ModelRequest.of("p")

    def keys(schema: dict[str, Any]) -> tuple[bytes, ...]:
        output = JsonSchema("answer", schema)
        tools = (Tool("answer", parameters=schema),)
        return (
            cache_key(msgspec.structs.replace(request, output=output)),
            cache_key(msgspec.structs.replace(request, tools=tools)),
            key("p", None, {"extra_body": {"response_format": {"schema": schema}}}),
        )

    assert keys(first) == keys({**first, "properties": {**first["properties"]}})  # type: ignore[dict-item]
    assert not set(keys(first)) & set(keys(last))


def test_options_may_map_numbers() -> None:
    biased = key("p", None, {"logit_bias": {50256: -100, 11: 5}})
    assert biased == key("p", None, {"logit_bias": {11: 5, 50256: -100}})
    assert biased != key("p", None, {"logit_bias": {"11": 5, "50256": -100}})


def test_text_does_not_slide_from_the_prompt_into_the_system_prompt() -> None:
    assert key("ab", "c") != key("a", "bc")
    assert key("a", "") != key("a", None)


def test_a_prompt_with_a_lone_surrogate_has_a_key() -> None:
    assert key("\ud800") != key("\ud801")


def test_not_a_number_is_not_none() -> None:
    assert key("p", None, {"t": float("nan")}) != key("p", None, {"t": None})


@pytest.mark.parametrize(
    "change",
    [
        {"messages": (ChatMessage("assistant", "p"),)},
        {"messages": (ChatMessage("user", "p"), ChatMessage("user", "p"))},
        {"messages": ()},
        {"options": SamplingOptions(temperature=0.5)},
        {"options": SamplingOptions(seed=0)},
        {"options": SamplingOptions(stop="x")},
        {"options": SamplingOptions(stop=("x",))},
        {"options": SamplingOptions(extra={"seed of doubt": 0})},
        {"sample": 1},
    ],
)
def test_whatever_differs_in_a_request_is_in_its_key(change: dict[str, Any]) -> None:
    request = ModelRequest.of("p")
    assert cache_key(msgspec.structs.replace(request, **change)) != cache_key(request)


def test_whose_answer_it_is_is_in_the_key() -> None:
    request = ModelRequest.of("p")
    keys = {cache_key(request), cache_key(request, "openai gpt-5"), cache_key(request, "openai gpt-4")}
    assert len(keys) == 3
    assert cache_key(request, identity="") == cache_key(request)


def test_a_request_from_another_process_has_the_same_key() -> None:
    request = ModelRequest.of(
        "p", "s", SamplingOptions.of({"temperature": 1, "stop": ["x"], "logit_bias": {5: -1}})
    )
    arrived = msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=ModelRequest)
    assert cache_key(arrived) == cache_key(request)


def test_keys_stay_the_same_unless_their_version_is_counted_up() -> None:
    options = {"temperature": 0.5, "max_tokens": 100, "logit_bias": {50256: -100}, "tags": {"b", "a"}}
    digest = "e5ba96be3d0003c23462f3c6f6402153a89d543b08e4960ff6206e809a411a1b"
    assert key("What is Ultra?", "Be brief.", options).hex() == digest, "count up the version in keys.py"


def test_a_key_is_the_same_in_another_process() -> None:
    code = (
        "from ultra.messages.request import ModelRequest, SamplingOptions;"
        "from ultra.stores.keys import cache_key;"
        "options = SamplingOptions.of({'b': {'x', 'y', 'z'}, 'a': 1});"
        "print(cache_key(ModelRequest.of('p', 's', options)).hex())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == key("p", "s", {"a": 1, "b": {"z", "y", "x"}}).hex()


def test_values_that_differ_in_their_kind_alone_have_different_keys() -> None:
    values = ["a", b"a", ["a"], {"a"}, {"a": None}, None, False, 0, 0.0, "\ud800", ["bytes", b"a"]]
    assert len({key_of_extra(value=value) for value in values}) == len(values)


@pytest.mark.parametrize("value", [object(), print, 2**80])
def test_an_option_without_an_encoding_is_a_bad_call_that_names_the_options(value: object) -> None:
    with pytest.raises(BadCall, match=r"options \('colour', 'tool'\).*use_cache=False"):
        key_of_extra(colour=1, tool=value)


def test_an_option_that_holds_itself_is_a_bad_call() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(BadCall, match="use_cache=False"):
        key_of_extra(loop=loop)
