"""One request to a model, and how it is to be answered."""

from __future__ import annotations

import math
from collections import OrderedDict
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.errors import BadCall
from ultra.messages.chat import ChatMessage
from ultra.messages.options import RunOptions
from ultra.messages.request import ModelRequest, SamplingOptions

# --- the options of a call -----------------------------------------------------------------------------


def test_options_are_made_of_a_mapping_and_other_names_go_to_the_extra_ones() -> None:
    options = SamplingOptions.of({"temperature": 0.5, "stop": ["a", "b"], "seed": 7, "logit_bias": {11: 5}})
    assert options == SamplingOptions(temperature=0.5, stop=("a", "b"), seed=7, extra={"logit_bias": {11: 5}})


def test_any_mapping_will_do() -> None:
    expected = SamplingOptions(seed=7, extra={"key": {"a": 1}})
    nested = MappingProxyType({"a": 1})
    assert SamplingOptions.of(MappingProxyType({"seed": 7, "key": nested})) == expected
    assert SamplingOptions.of(OrderedDict(seed=7, key=OrderedDict(a=1))) == expected


def test_further_options_beside_extra_are_added_to_it() -> None:
    options = SamplingOptions.of({"extra": {"top_k": 5}, "tags": ["a"]})
    assert options.extra == {"top_k": 5, "tags": ["a"]}
    assert SamplingOptions.of({"extra": {"tags": {"a"}}}).extra == {"tags": ["a"]}


def test_options_that_are_some_already_are_taken_as_they_are() -> None:
    options = SamplingOptions(seed=7)
    assert SamplingOptions.of(options) is options
    assert SamplingOptions.of(None) == SamplingOptions.of({}) == SamplingOptions()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0, 2),
            "top_p": st.floats(0, 1),
            "max_tokens": st.integers(1, 10**6),
            "seed": st.integers(-5, 5),
            "stop": st.text(max_size=3),
            "reasoning_effort": st.sampled_from(["low", "high"]),
            "key": st.text(max_size=3),
            "tags": st.lists(st.integers(), max_size=3).map(lambda tags: [tag % 2**63 for tag in tags]),
        },
    )
)
def test_what_was_given_is_what_clients_get(given_options: dict[str, Any]) -> None:
    assert SamplingOptions.of(given_options).given() == given_options


def test_none_is_no_option_but_among_the_extra_ones() -> None:
    assert SamplingOptions.of({"seed": None, "key": None}).given() == {"key": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (7, r"options is int; it must be a mapping from the names of options to their values"),
        ("seed=7", r"options is str; it must be a mapping"),
        ([("seed", 7)], r"options is list; it must be a mapping"),
        ({"seed": 1, 2: 3}, r"options is \['seed', 2\]; it must be a mapping"),
        ({"temperature": "hot"}, r"Expected `float \| null`, got `str` - at `\$\.temperature`"),
        ({"temperature": math.nan}, "temperature must be a finite number, not nan"),
        ({"top_p": math.inf}, "top_p must be a finite number, not inf"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, not 0"),
        ({"max_tokens": 1.5}, r"Expected `int \| null`, got `float` - at `\$\.max_tokens`"),
        ({"seed": 2**64}, "seed must be a number of 64 bits, not 18446744073709551616"),
        ({"stop": [1]}, r"Expected `str`, got `int` - at `\$\.stop\[0\]`"),
        ({"extra": 7}, r"Expected `object`, got `int` - at `\$\.extra`"),
        ({"extra": {"seed": 7}}, r"extra names \['seed'\], which are options of their own"),
        ({"extra": {1: 7}}, "Expected `str`, got `int`"),
        ({"max_tokens": 2**64}, "max_tokens must be a number of 64 bits"),
    ],
)
def test_options_that_are_not_allowed_are_refused_by_name(options: object, message: str) -> None:
    with pytest.raises(BadCall, match=message):
        SamplingOptions.of(options)


@pytest.mark.parametrize("value", [object(), print, 2**80, "\ud800", {"a": {open}}, [print]])
@pytest.mark.parametrize("name", ["tool", "extra"])
def test_an_option_that_is_no_value_is_a_bad_call_that_names_the_options(value: object, name: str) -> None:
    given_options = {"tool": value} if name == "tool" else {"extra": {"tool": value}}
    with pytest.raises(BadCall, match=r"options \(.*'tool'.*\) cannot be sent.*use plain values"):
        SamplingOptions.of({"colour": 1, "temperature": 1, **given_options})


def test_an_option_that_holds_itself_is_a_bad_call() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(BadCall, match="use plain values"):
        SamplingOptions.of({"loop": loop})


def test_sets_become_lists_in_one_order() -> None:
    options = SamplingOptions.of({"tags": {"c", "a", "b"}, "pairs": [{(2, "b"), (1, "a")}]})
    assert options.extra == {"tags": ["a", "b", "c"], "pairs": [[[1, "a"], [2, "b"]]]}


def test_what_a_caller_changes_later_changes_no_options() -> None:
    stops, tags = ["a"], ["x"]
    options = SamplingOptions.of({"stop": stops, "tags": tags})
    stops.append("b")
    tags.append("y")
    assert options.given() == {"stop": ("a",), "tags": ["x"]}


def test_no_value_of_an_extra_option_is_shown_for_it_may_be_a_key() -> None:
    options = SamplingOptions(seed=7, extra={"api_key": "sk-secret"})
    assert repr(options) == "SamplingOptions(seed=7, extra=['api_key'])"
    assert options.__rich_repr__() == [("seed", 7), ("extra", ["api_key"])]
    for holder in (options, RunOptions(sampling=options), ModelRequest.of("Q", options=options)):
        assert "secret" not in repr(holder)
        assert "secret" not in str(holder)
    assert repr(SamplingOptions()) == "SamplingOptions()"


@pytest.mark.parametrize(
    "options",
    [
        {"key": "sk-secret", "seed": "sk-secret"},
        {"sk": object(), "key": "sk-secret"},
        {"key": "sk-secret \ud800"},
    ],
)
def test_no_value_is_shown_when_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadCall) as caught:
        SamplingOptions.of(options)
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


# --- requests ------------------------------------------------------------------------------------------


def test_a_request_of_a_prompt_has_the_system_prompt_ahead_of_it() -> None:
    options = SamplingOptions(seed=7)
    request = ModelRequest.of("Q", "Be brief.", options)
    assert request.messages == (ChatMessage("system", "Be brief."), ChatMessage("user", "Q"))
    assert (request.system, request.prompt, request.options, request.sample) == ("Be brief.", "Q", options, 0)


def test_a_request_without_a_system_prompt_has_none_unlike_one_with_an_empty_one() -> None:
    assert ModelRequest.of("Q").messages == (ChatMessage("user", "Q"),)
    assert ModelRequest.of("Q").system is None
    assert ModelRequest.of("Q", "").system == ""
    assert ModelRequest.of("Q").options == SamplingOptions()


def test_several_system_messages_read_as_one_and_the_last_of_the_user_is_the_prompt() -> None:
    request = ModelRequest(
        messages=(
            ChatMessage("system", "one"),
            ChatMessage("user", "first"),
            ChatMessage("assistant", "answer"),
            ChatMessage("user", "second"),
            ChatMessage("system", "two"),
            ChatMessage("assistant", "begins"),
        )
    )
    assert request.system == "one\n\ntwo"
    assert request.prompt == "second"
    assert ModelRequest(messages=()).prompt == ""


def test_a_request_does_not_change() -> None:
    request = ModelRequest.of("Q")
    with pytest.raises(AttributeError):
        request.sample = 1  # type: ignore[misc]
