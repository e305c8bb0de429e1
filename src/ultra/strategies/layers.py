"""Mixture of agents: in each layer all models answer again, having read all answers of the layer before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ultra._support.checks import check_count, check_flag
from ultra.prompts.composing import Task
from ultra.strategies.panel import (
    check_answered,
    check_model_name,
    check_named,
    only_answer,
    read_and_decide,
    unanimous_answer,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ultra.strategies.base import Answer, RunContext

__all__ = ["Layers"]

_IMPROVE: Final = Task(
    role="You write an answer to the user's question that is better than the candidate answers to it.",
    rules=(
        "Some candidates may be wrong: check them, keep what is right, and correct what is not. Decide by "
        "evidence, not by headcount. Do not mention the candidates or this process."
    ),
    request="Write a better answer to the question:",
    answers=True,
)


class Layers(Struct, frozen=True, kw_only=True):
    """Let all models answer in `rounds` layers, of which each reads the one before; then merge the last one.

    Mixture-of-Agents (Wang et al., 2024, arXiv:2406.04692). `writer` is the model that merges, by default the
    heaviest one that answered. With `keep_unanimous`, an answer on which all agree stands, and nothing
    further is asked. A model that fails in one layer is asked again in the next; a layer in which nobody
    answers is left out, and the result is degraded.

    Raises:
        BadCall: an option is not allowed.
    """

    rounds: int = 2
    writer: str | None = None
    keep_unanimous: bool = True

    def __post_init__(self) -> None:
        check_count("rounds", self.rounds)
        check_model_name("writer", self.writer)
        check_flag("keep_unanimous", self.keep_unanimous)

    def check_models(self, asked: Sequence[str], registered: Collection[str]) -> None:  # noqa: ARG002 - as all have it
        """Check the names in the options; see `ChecksModels.check_models`."""
        check_named("writer", [self.writer], asked)

    async def run(self, context: RunContext) -> Answer:
        """Ask layer by layer, and merge the last one; see `Strategy.run`."""
        with context.step("initial"):
            responses = await context.ask_all(
                context.request, within=context.time_left(self.rounds / (self.rounds + 1))
            )
        check_answered(context, responses)
        for number in range(self.rounds):
            answer = only_answer(context, responses, "further layers")
            if answer is None and self.keep_unanimous:
                answer = await unanimous_answer(context, responses)
            if answer is not None:
                return answer
            if number == self.rounds - 1:
                break
            with context.step("layer", number) as step:
                found = await context.ask_all(
                    context.compose(_IMPROVE, responses),
                    within=context.time_left((self.rounds - number - 1) / (self.rounds + 1)),
                    required=False,
                )
            if not found and not step.left_out:
                context.degrade(f"nobody answered in layer {number + 2}; the answers before it stand")
            responses = found or responses
        return await read_and_decide(context, responses, judge=self.writer)
