from __future__ import annotations

from typing import Any

import pytest

from ultra.errors import BadCall
from ultra.messages.request import SamplingOptions


@pytest.mark.parametrize("value", [object(), print, 2**80, "\ud800"])
def test_an_option_that_is_no_value_is_a_bad_call_that_names_the_options(value: object) -> None:
    with pytest.raises(BadCall, match=r"options \('colour', 'tool'\) cannot be sent.*use plain values"):
        SamplingOptions.of({"colour": 1, "tool": value, "temperature": 1})


def test_an_option_that_holds_itself_is_a_bad_call() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(BadCall, match="use plain values"):
        SamplingOptions.of({"loop": loop})


def test_sets_become_lists_in_one_order() -> None:
    options = SamplingOptions.of({"tags": {"c", "a", "b"}, "pairs": [{(2, "b"), (1, "a")}]})
    assert options.extra == {"tags": ["a", "b", "c"], "pairs": [[[1, "a"], [2, "b"]]]}


def test_further_options_beside_extra_are_added_to_it() -> None:
    options = SamplingOptions.of({"extra": {"top_k": 5}, "tags": ["a"]})
    assert options.extra == {"top_k": 5, "tags": ["a"]}
