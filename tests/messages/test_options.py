"""The settings of one run: what is allowed, what takes the place of what."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ultra.errors import BadCall
from ultra.messages.options import RunArguments, RunOptions
from ultra.messages.request import SamplingOptions


@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        *(("timeout", bad, "a number of seconds above 0, or None") for bad in (0, -1, math.nan, "5", True)),
        *(("grace", bad, "a number of seconds, 0 or more, or None") for bad in (-0.1, math.nan, "5", False)),
        *(("max_cost", bad, "a number of dollars above 0, or None") for bad in (0.0, -1, math.nan, True)),
        *(
            ("quorum", bad, "'all', or a whole number of at least 1")
            for bad in (0, -1, 1.5, True, "any", None)
        ),
        *(("use_cache", bad, "True or False") for bad in ("no", 1, None)),
        *(("samples", bad, "a whole number, 1 or more") for bad in (0, 1.0, True, None)),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused_with_what_was_given_and_what_is_allowed(
    setting: str, value: object, allowed: str
) -> None:
    with pytest.raises(BadCall) as caught:
        RunOptions(**{setting: value})  # type: ignore[arg-type]
    assert setting in str(caught.value)
    assert f"is {value!r}" in str(caught.value)
    assert allowed in str(caught.value)


def test_the_way_to_write_is_such_an_object_and_nothing_of_another_is_shown() -> None:
    with pytest.raises(BadCall) as caught:
        RunOptions(sampling={"api_key": "sk-secret"})  # type: ignore[arg-type]
    assert str(caught.value) == "sampling is of type dict; it must be a SamplingOptions object"


def test_all_settings_may_be_what_they_are_by_default_and_more() -> None:
    assert RunOptions() == RunOptions(
        timeout=None,
        quorum=1,
        grace=None,
        max_cost=None,
        use_cache=True,
        samples=1,
        sampling=SamplingOptions(),
    )
    RunOptions(timeout=0.1, quorum="all", grace=0, max_cost=1e-9, use_cache=False, samples=9)
    RunOptions(timeout=math.inf, quorum=99, grace=math.inf, max_cost=math.inf)


def test_what_is_given_takes_the_place_of_what_was_and_none_leaves_it() -> None:
    options = RunOptions(timeout=60, quorum=2, sampling=SamplingOptions(seed=1))
    given = {"timeout": 5, "quorum": None, "use_cache": False, "sampling": SamplingOptions(seed=2)}
    assert options.override(given) == RunOptions(
        timeout=5, quorum=2, use_cache=False, sampling=SamplingOptions(seed=2)
    )
    assert options == RunOptions(timeout=60, quorum=2, sampling=SamplingOptions(seed=1))


@pytest.mark.parametrize("given", [{}, {"timeout": None, "samples": None}])
def test_with_nothing_given_the_options_stay_the_same(given: dict[str, Any]) -> None:
    options = RunOptions(quorum="all")
    assert options.override(given) is options


def test_what_is_given_is_checked_too() -> None:
    with pytest.raises(BadCall, match="timeout is -5; it must be a number of seconds above 0, or None"):
        RunOptions().override({"timeout": -5})


@pytest.mark.parametrize("value", [7, None])
def test_a_setting_that_does_not_exist_is_refused_and_those_that_do_are_named(value: object) -> None:
    with pytest.raises(BadCall) as caught:
        RunOptions().override({"timeout": 5, "time_out": value})
    assert str(caught.value) == (
        "unknown setting 'time_out' of a run; there are: "
        "timeout, quorum, grace, max_cost, use_cache, scope, samples, tool_policy, primary, name, sampling, "
        "per_model; "
        "did you mean 'timeout'?"
    )


def test_every_setting_is_an_argument_of_a_call() -> None:
    # A call has `system` and tools beside the settings, and says `options` for the way to write.
    arguments = {*RunArguments.__annotations__} - {"system", "options", "tools", "tool_choice", "output"}
    assert arguments == {*RunOptions.__struct_fields__} - {"sampling"}


@pytest.mark.parametrize(("quorum", "models", "needed"), [(1, 3, 1), (2, 3, 2), (3, 3, 3), ("all", 3, 3)])
def test_the_quorum_says_how_many_models_are_needed(quorum: Any, models: int, needed: int) -> None:
    assert RunOptions(quorum=quorum).needed(models) == needed


def test_a_quorum_above_the_number_of_models_is_refused() -> None:
    with pytest.raises(BadCall, match=r"the quorum is 4; .* at most the number of models .* \(3\)"):
        RunOptions(quorum=4).needed(3)
