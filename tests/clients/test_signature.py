from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from ultra.clients.signature import DeclaredCall, UnusableSignatureError, may_block
from ultra.messages.request import ModelRequest, SamplingOptions

if TYPE_CHECKING:
    from collections.abc import Callable

OPTIONS = SamplingOptions(temperature=0.5, seed=7)
GIVEN = OPTIONS.given()


def only_prompt(prompt: str) -> tuple[Any, ...]:
    return (prompt,)


def some_options(prompt: str, *, seed: int = 0) -> tuple[Any, ...]:
    return (prompt, seed)


def by_position(prompt: str, system: str | None = None, seed: int = 0) -> tuple[Any, ...]:
    return (prompt, system, seed)


def anything(prompt: str, **rest: Any) -> tuple[Any, ...]:
    return (prompt, rest)


def everything(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return (args, kwargs)


def required_system(prompt: str, *, system: str | None) -> tuple[Any, ...]:
    return (prompt, system)


def hidden_option(prompt: str, seed: int = 0, /) -> tuple[Any, ...]:
    return (prompt, seed)


@pytest.mark.parametrize(
    ("function", "system", "passed"),
    [
        (only_prompt, None, ("Q",)),
        (only_prompt, "S", ("S\n\nQ",)),
        (some_options, None, ("Q", 7)),
        (some_options, "S", ("S\n\nQ", 7)),
        (by_position, "S", ("Q", "S", 7)),
        (by_position, None, ("Q", None, 7)),
        (anything, "S", ("Q", {**GIVEN, "system": "S"})),
        (anything, None, ("Q", GIVEN)),
        (everything, "S", (("Q",), {**GIVEN, "system": "S"})),
        (required_system, None, ("Q", None)),
        (hidden_option, None, ("Q", 0)),
        (partial(some_options, seed=9), None, ("Q", 7)),
    ],
)
def test_only_what_is_declared_is_passed(
    function: Callable[..., Any], system: str | None, passed: tuple[Any, ...]
) -> None:
    assert DeclaredCall(function)(ModelRequest.of("Q", system, OPTIONS)) == passed


def test_options_cannot_take_the_place_of_the_prompt_or_the_system_prompt() -> None:
    options = SamplingOptions(extra={"prompt": "other", "system": "other"})

    assert DeclaredCall(anything)(ModelRequest.of("Q", None, options)) == ("Q", {})


def test_a_function_that_tells_nothing_of_itself_gets_the_prompt_alone() -> None:
    class Opaque:
        __signature__ = "none"

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return (args, kwargs)

    assert DeclaredCall(Opaque())(ModelRequest.of("Q", "S", OPTIONS)) == (("S\n\nQ",), {})


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        pytest.param(lambda: None, "no prompt", id="nothing"),
        pytest.param(lambda *, prompt: None, "no prompt", id="prompt by keyword only"),
        pytest.param(lambda **kwargs: None, "no prompt", id="anything by keyword only"),
        pytest.param(lambda prompt, model: None, "model", id="model"),
        pytest.param(lambda prompt, *, model, size: None, "model, size", id="two options"),
        pytest.param(lambda prompt, system, /: None, "system", id="system by position only"),
    ],
)
def test_a_function_that_cannot_be_called_with_a_prompt_is_refused(
    function: Callable[..., Any], reason: str
) -> None:
    with pytest.raises(UnusableSignatureError, match=reason):
        DeclaredCall(function)


def test_only_coroutine_functions_are_known_not_to_block() -> None:
    class AsyncCallable:
        async def __call__(self) -> None: ...

    async def function() -> None: ...

    assert not may_block(function)
    assert not may_block(partial(function))
    assert not may_block(AsyncCallable())
    assert may_block(lambda: function())  # noqa: PLW0108 - a plain function is the point
