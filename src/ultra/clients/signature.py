"""What a client's function takes, found once, so that only that is passed to it."""

from __future__ import annotations

from functools import partial
from inspect import Parameter, iscoroutinefunction, signature
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Callee", "UnusableSignatureError", "may_block"]

_BY_POSITION: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)
_BY_KEYWORD: Final = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_VARIADIC: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


class UnusableSignatureError(Exception):
    """The function cannot be called with a prompt; the message says why."""


def may_block(function: Callable[..., object]) -> bool:
    """Whether calling `function` may take long: it is not known to do no more than make a coroutine."""
    called = type(function).__call__  # an object may have an async `__call__`
    return not (iscoroutinefunction(function) or iscoroutinefunction(called))


class Callee:
    """A function of a client that takes a prompt, and whatever else it declares.

    Attributes:
        blocks: whether it must be called off the event loop.

    Raises:
        UnusableSignatureError: it takes no prompt by position, or it needs more than a prompt and a
            system prompt.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function
        self._declared: dict[str, Parameter] = {}
        self._takes_any = False
        self._prompt_name: str | None = None
        self._read_signature()
        self._takes_system = self.takes("system")
        self._requires_system = self._requires("system")
        self.blocks = may_block(function)

    def takes(self, name: str) -> bool:
        """Whether `name` is declared, or anything is by ``**kwargs``, so that it may be passed."""
        return name in self._declared or (self._takes_any and name != self._prompt_name)

    def bind(self, prompt: str, system: str | None, options: Mapping[str, object]) -> Callable[[], object]:
        """A call that needs no more arguments: with `prompt`, and what is declared of the rest.

        A system prompt that the function does not take goes ahead of the prompt.
        """
        passed = {name: value for name, value in options.items() if name != "system" and self.takes(name)}
        if self._takes_system:
            if system is not None or self._requires_system:
                passed["system"] = system
        elif system is not None:
            prompt = f"{system}\n\n{prompt}"
        return partial(self._function, prompt, **passed)

    def _requires(self, name: str) -> bool:
        parameter = self._declared.get(name)
        return parameter is not None and parameter.default is Parameter.empty

    def _read_signature(self) -> None:
        try:
            parameters = list(signature(self._function).parameters.values())
        except (TypeError, ValueError):
            return  # some functions written in C tell nothing; they get the prompt and no more
        if not parameters or parameters[0].kind not in _BY_POSITION:
            raise UnusableSignatureError("takes no prompt as its first positional argument")
        first = parameters[0]
        if first.kind is not Parameter.VAR_POSITIONAL:
            parameters = parameters[1:]
            self._prompt_name = first.name
        self._takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters)
        self._declared = {
            parameter.name: parameter for parameter in parameters if parameter.kind in _BY_KEYWORD
        }
        missing = [
            parameter.name
            for parameter in parameters
            if parameter.kind not in _VARIADIC
            and parameter.default is Parameter.empty
            and not (parameter.name == "system" and parameter.kind in _BY_KEYWORD)
        ]
        if missing:
            raise UnusableSignatureError(f"needs more than a prompt: {', '.join(missing)}")
