"""Tools made of typed Python functions: the schema of their arguments, and what models write, decoded."""

from __future__ import annotations

import copy
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT, Struct

from ultra.errors import BadCall
from ultra.messages.pydantic_models import ModelSchemas, is_pydantic_model, of_plain
from ultra.messages.tools import Tool, no_parameters

__all__ = ["FunctionTool", "schema_of", "tools_of"]

_KEYWORDS: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class FunctionTool:
    """A typed Python function as a tool. The first paragraph of its docstring is the description.

    Parameters become a JSON schema by their annotations: types that msgspec knows, and pydantic models; a
    description of one is
    ``Annotated[str, msgspec.Meta(description="…")]``::

        def weather(city: str, unit: Literal["C", "F"] = "C") -> str:
            "Return the weather of a city."

        tool = FunctionTool(weather)
        tool.tool.parameters["properties"]["unit"]  # {'enum': ['C', 'F'], 'default': 'C'}

    Raises:
        BadCall: a parameter has no annotation, or one that JSON cannot have; or it cannot be passed by name.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function
        name = getattr(function, "__name__", "")
        try:
            parameters = inspect.signature(function).parameters.values()
            hints = typing.get_type_hints(_annotated(function), include_extras=True)
        except (TypeError, ValueError, NameError) as error:
            raise BadCall(f"the signature of the tool {name!r} cannot be read: {error}") from None
        fields: list[tuple[str, Any, Any]] = []
        for parameter in parameters:
            if parameter.kind not in _KEYWORDS:
                raise BadCall(
                    f"the tool {name!r} has the parameter {str(parameter)!r}; "
                    "each parameter must be one that can be passed by its name"
                )
            if parameter.name not in hints:
                raise BadCall(
                    f"the parameter {parameter.name!r} of the tool {name!r} has no type; write, for example, "
                    f"{parameter.name}: str"
                )
            default = NODEFAULT if parameter.default is inspect.Parameter.empty else parameter.default
            fields.append((parameter.name, hints[parameter.name], _default(default)))
        try:
            self._arguments = msgspec.defstruct(
                "Arguments", fields, kw_only=True, forbid_unknown_fields=True, module=__name__
            )
            parameters_schema = schema_of(self._arguments) if fields else no_parameters()
        except (TypeError, ValueError) as error:
            raise BadCall(f"the parameters of the tool {name!r} have no JSON schema: {error}") from None
        parameters_schema.pop("title", None)
        self.tool = Tool(name, _first_paragraph(function), parameters_schema)

    def decode(self, arguments: str) -> dict[str, Any]:
        """Return the arguments by name, decoded from the JSON that a model wrote.

        Raises:
            msgspec.DecodeError: they do not satisfy the schema; the message says where.
        """
        found = msgspec.json.decode(arguments or "{}", type=self._arguments, strict=False, dec_hook=of_plain)
        return {name: getattr(found, name) for name in found.__struct_fields__}


class _OpenAITool(Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _AnyTool(Struct):
    type: str | None = None
    function: _OpenAITool | None = None
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: dict[str, str] | None = None


def tools_of(given: object) -> tuple[Tool, ...]:
    """Return the tools that a caller gives.

    Each is a `Tool`, a typed function, or a mapping in the form of OpenAI (chat completions or responses) or
    of Anthropic.

    Raises:
        BadCall: one is something else, or two have the same name. The message names index and key.
    """
    if given is None:
        return ()
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise BadCall(f"tools is of type {type(given).__name__}; it must be a list of tools")
    tools = tuple(_tool(each, f"tools[{index}]") for index, each in enumerate(given))
    seen: set[str] = set()
    for tool in tools:
        if tool.name in seen:
            raise BadCall(
                f"tools has the name {tool.name!r} more than once; each tool needs a name of its own"
            )
        seen.add(tool.name)
    return tools


def schema_of(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a type
    """Return the JSON schema of a type that msgspec knows, with all definitions inside it.

    There may be pydantic models in it.

    Raises:
        TypeError: there is none.
    """
    models = ModelSchemas()
    (schema,), components = msgspec.json.schema_components(
        [kind], ref_template="#/$defs/{name}", schema_hook=models.schema
    )
    root = schema
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    if name in components:
        root = components[name]
        if f'"#/$defs/{name}"' not in msgspec.json.encode(components).decode():
            components = {each: value for each, value in components.items() if each != name}
    definitions = {**components, **models.definitions}
    return {**root, "$defs": definitions} if definitions else dict(root)


def _tool(given: object, where: str) -> Tool:
    if isinstance(given, Tool):
        return given
    if isinstance(given, FunctionTool):
        return given.tool
    if isinstance(given, Mapping):
        return _tool_of_mapping(given, where)
    if callable(given):
        return FunctionTool(given).tool
    raise BadCall(
        f"{where} is of type {type(given).__name__}; it must be an ultra.Tool, a function with types, or a "
        "mapping such as {'type': 'function', 'function': {'name': …, 'parameters': …}}"
    )


def _tool_of_mapping(given: Mapping[Any, Any], where: str) -> Tool:
    try:
        found = msgspec.convert(given, _AnyTool)
    except msgspec.ValidationError as error:
        raise BadCall(f"{where}: {error}") from None
    kind = found.type
    if kind not in {None, "function"} and not (kind == "custom" and found.input_schema is not None):
        raise BadCall(
            f"{where} has the type {kind!r}: a tool that the provider carries out, or without a schema; give "
            "functions: {'type': 'function', 'function': {'name': …, 'parameters': …}}"
        )
    inner = found.function or _OpenAITool(
        found.name or "", found.description, found.parameters or found.input_schema, found.strict
    )
    if not inner.name:
        raise BadCall(f"{where} has no name; give {{'type': 'function', 'function': {{'name': …}}}}")
    try:
        return Tool(
            inner.name,
            inner.description or "",
            msgspec.to_builtins(inner.parameters or no_parameters()),
            inner.strict,
            found.cache_control,
        )
    except (BadCall, TypeError) as error:
        raise BadCall(f"{where}: {error}") from None


def _annotated(function: Callable[..., object]) -> Callable[..., object]:
    """Return what has the annotations: the function, or the `__call__` of an object."""
    return function if hasattr(function, "__annotations__") else type(function).__call__


def _default(value: Any) -> Any:  # noqa: ANN401 - any default
    """Return a default as msgspec takes it: what can change is made new for each call."""
    if isinstance(value, list | dict | set) and value:
        return msgspec.field(default_factory=partial(copy.deepcopy, value))
    if is_pydantic_model(type(value)):
        return msgspec.field(default_factory=partial(copy.deepcopy, value))
    return value


def _first_paragraph(function: Callable[..., object]) -> str:
    text = inspect.getdoc(function) or ""
    return " ".join(text.partition("\n\n")[0].split())
