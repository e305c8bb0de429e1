"""What `MultiLLMOrchestrator.run_tools` returns."""

from __future__ import annotations

from msgspec import Struct

from ultra._support.mapping import Record
from ultra.messages.chat import ChatMessage
from ultra.messages.results import ModelResponse, OrchestrationResult

__all__ = ["ToolRun"]


class ToolRun(Record, Struct, kw_only=True):
    """A conversation with tools, to its end. Prints as its last result; reads as a mapping, too.

    Attributes:
        messages: the whole conversation: what was given, each call of a tool with its result, and the answer.
            It can be continued with another message of the user.
        turns: the results of its runs, in order. All but the last one ask for calls of tools.
        response_time: seconds in all, those of the functions included.
        cost: dollars of all runs; None if no model has a price.
    """

    messages: tuple[ChatMessage, ...]
    turns: tuple[OrchestrationResult, ...]
    response_time: float = 0.0
    cost: float | None = None

    @property
    def result(self) -> OrchestrationResult:
        """The result of the last run."""
        return self.turns[-1]

    @property
    def final_synthesis(self) -> ModelResponse | None:
        """The answer; if the budget was used up before there was one, the latest calls."""
        return self.result.final_synthesis

    def keys(self) -> tuple[str, ...]:
        """Return the names that can be read."""
        return (*self.__struct_fields__, "result", "final_synthesis")

    def __str__(self) -> str:
        calls = sum(len(turn.tool_calls) for turn in self.turns)
        turns = "1 turn" if len(self.turns) == 1 else f"{len(self.turns)} turns"
        tools = "1 call of a tool" if calls == 1 else f"{calls} calls of tools"
        return f"{turns}, {tools}, {self.response_time:.1f} s\n{self.result}"
