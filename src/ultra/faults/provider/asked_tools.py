"""Read the tools of a request, and whether one must be called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ultra.errors import BadCall
from ultra.faults.provider.media_reading import bad_request
from ultra.messages.tools import Tool, ToolChoice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ANY_OBJECT", "choice_of", "tool_of"]

ANY_OBJECT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
}
"""What an answer is made of where only JSON is asked for."""


def tool_of(name: str, description: str, parameters: Mapping[str, Any]) -> Tool:
    """Return a tool. Raises `Refused` if it cannot be one."""
    try:
        return Tool(name, description, dict(parameters))
    except BadCall as error:
        raise bad_request(str(error)) from None


def choice_of(given: object, tools: Sequence[Tool], *, parallel: bool | None) -> ToolChoice:
    """Return which tools must be called; `given` is a mode, the name of a tool, or None.

    Raises `Refused` if there is no such tool.
    """
    names = {tool.name for tool in tools}
    if given is None or given in {"auto", "none"}:
        return ToolChoice("none" if given == "none" else "auto", None, parallel)
    if not tools:
        raise bad_request(
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
        )
    if given == "required":
        return ToolChoice("required", None, parallel)
    if given not in names:
        raise bad_request(
            f"Invalid value for 'tool_choice': tool choice '{given}' not found in 'tools' parameter."
        )
    return ToolChoice("named", str(given), parallel)
