"""Calling a client's function with what it declares, found out once."""

from __future__ import annotations

from inspect import Parameter, iscoroutinefunction, signature
from typing import TYPE_CHECKING, Any, Final

from ultra.clients.structured import in_words
from ultra.messages.openai_form import (
    messages_as_openai,
    schema_as_openai,
    tool_as_openai,
    tool_choice_as_openai,
)
from ultra.messages.rendering import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ultra.messages.request import ModelRequest

__all__ = ["DeclaredCall", "UnusableSignatureError", "may_block"]

_BY_POSITION: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)
_BY_KEYWORD: Final = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_VARIADIC: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


_CONVERSATION: Final[Mapping[str, Callable[[ModelRequest], Any]]] = {
    "messages": lambda request: messages_as_openai(request.messages),
    "tools": lambda request: [tool_as_openai(tool) for tool in request.tools] or None,
    "tool_choice": lambda request: request.tool_choice and tool_choice_as_openai(request.tool_choice),
    "output": lambda request: request.output and schema_as_openai(request.output),
}
"""What a function may declare beside the options, each by what makes it of a request."""


class UnusableSignatureError(Exception):
    """The function cannot be called with a prompt; the message says why."""


def may_block(function: Callable[..., object]) -> bool:
    """Return whether calling `function` may take long: only of coroutine functions it is known not to."""
    called = type(function).__call__  # an object may have an async `__call__`
    return not (iscoroutinefunction(function) or iscoroutinefunction(called))


class DeclaredCall:
    """A function that takes a prompt, as a function that takes a `ModelRequest`.

    It gets the prompt by position. That is the question, or a conversation as text with the roles named. Of
    the system prompt and the options it gets what it declares (``**kwargs`` declares everything). A system
    prompt that it does not declare goes ahead of the prompt::

        async def generate(prompt, *, temperature=1.0): ...

        # Of these, generate gets the prompt and the temperature, and no seed.
        options = SamplingOptions(temperature=0.2, seed=1)
        DeclaredCall(generate)(ModelRequest.of("Why is the sky blue?", options=options))

    By name it may also declare ``messages`` (the whole conversation), ``tools``, ``tool_choice`` and
    ``output`` (the schema of the answer). These come in the form of OpenAI's chat completions. To a function
    that does not declare ``output``, the schema is told in words, behind the question. A first parameter
    named ``messages`` gets the conversation in place of the prompt.

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
        self._options = frozenset(self._declared) - {"system", *_CONVERSATION}
        self._conversation = [name for name in _CONVERSATION if name in self._declared]

    def __call__(self, request: ModelRequest) -> object:
        """Call the function and return what it returns, which may be an awaitable."""
        if request.output is not None and "output" not in self._declared:
            request = in_words(request)
        passed: dict[str, object] = {}
        if self._takes_any or self._options:
            options = request.options.given()
            passed = {name: options[name] for name in options if name != "system" and self.takes(name)}
        for name in self._conversation:
            value = _CONVERSATION[name](request)
            if value is not None:
                passed[name] = value
        if self._prompt_name == "messages":
            return self._function(messages_as_openai(request.messages), **passed)
        if not self._takes_system:
            return self._function(as_text(request.messages), **passed)
        system = request.system
        if system is not None or self._requires_system:
            passed["system"] = system
        return self._function(as_text([each for each in request.messages if each.role != "system"]), **passed)

    @property
    def takes_messages(self) -> bool:
        """Whether the function gets the messages themselves, and not only their text."""
        return "messages" in self._declared or self._prompt_name == "messages"

    @property
    def option_names(self) -> frozenset[str] | None:
        """The names of the options that the function declares; None: it takes any."""
        return None if self._takes_any else self._options

    def takes(self, name: str) -> bool:
        """Return whether the function declares `name` as a keyword."""
        if name in _CONVERSATION:
            return name in self._declared
        return name in self._declared or (self._takes_any and name != self._prompt_name)

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
            and not (parameter.name in {"system", "messages"} and parameter.kind in _BY_KEYWORD)
        ]
        if missing:
            raise UnusableSignatureError(f"needs more than a prompt: {', '.join(missing)}")
