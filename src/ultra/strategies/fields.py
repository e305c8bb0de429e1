"""Merge structured answers field by field, and let a judge decide only what is disputed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ultra._support.checks import check_number, shown
from ultra._support.cooperative import run_in_pieces
from ultra.errors import BadCall
from ultra.messages.json_in_text import json_candidates
from ultra.messages.results import ModelResponse
from ultra.prompts.composing import Task
from ultra.scoring.field_merge import merge_in_pieces, with_choices
from ultra.strategies.base import Answer
from ultra.strategies.panel import check_answered, check_model_name, check_named

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ultra.scoring.field_merge import Field, MergedFields
    from ultra.strategies.base import Model, RunContext

__all__ = ["Fields"]

_MOST_DISPUTED: Final = 200
"""So many fields are put to the judge, those of the lowest share first."""

_JUDGE: Final = Task(
    role="You decide which value is right where several extractions from the user's input disagree.",
    rules=(
        "Each candidate is a JSON object from the path of a disputed field to the value that it has there. "
        "For each path, choose the value that the input supports, exactly as one of the candidates has it. "
        "Answer with one JSON object from path to value, and nothing else."
    ),
    request="Decide the disputed fields of the answer to the question:",
)


class Fields(Struct, frozen=True, kw_only=True):
    """Ask all models for the same structured output, and merge their answers field by field.

    Enums, booleans and whole numbers are decided by weighted majority, other numbers by the cluster of most
    weight (`tolerance`, relative), dates and names by majority, other texts by the one that is most like the
    others. Items of lists are aligned
    by `key`, or by a name that is found. A field for which less than `threshold` (0..1) of the weight stands
    is decided by `judge`, the name of a model, by default the one of highest weight: it chooses among the
    values that models gave. `results.agreement` has the share of each field. The merged value satisfies the
    schema; where it would not, the best whole answer stands, and a notice says so.

    Raises:
        BadCall: an option is not allowed.
    """

    needs_output: ClassVar[bool] = True

    threshold: float = 0.5
    tolerance: float = 0.01
    key: str | None = None
    judge: str | None = None

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, most=1.0)
        check_number("tolerance", self.tolerance, most=1.0)
        if self.tolerance == 1:
            raise BadCall(
                "tolerance is 1; it must be below 1, as numbers that differ by so much are not alike"
            )
        key: object = self.key
        if not (key is None or (isinstance(key, str) and key)):
            raise BadCall(f"key is {shown(key)}; it must be the name of a field, or None")
        check_model_name("judge", self.judge)

    def check_models(self, asked: Sequence[str], registered: Collection[str]) -> None:  # noqa: ARG002 - as all have it
        """Check the names in the options; see `ChecksModels.check_models`."""
        check_named("judge", [self.judge], asked)

    async def run(self, context: RunContext) -> Answer:
        """Ask all, merge, let the judge decide what is disputed, and validate; see `Strategy.run`."""
        judges = self._judges(context)
        with context.step("initial"):
            responses = await context.ask_all(context.request)
            if len(responses) > 1:
                responses = await context.score(responses)
        check_answered(context, responses)
        responses = [response for response in responses if not response.tool_calls] or responses
        if len(responses) == 1:
            return Answer(responses[0], "selected")
        weights = {model.name: model.weight for model in context.models}
        schema = None if context.request.output is None else context.request.output.of_value
        try:
            work = merge_in_pieces(
                [(response.output, weights[response.model_name]) for response in responses],
                schema,
                key=self.key,
                tolerance=self.tolerance,
            )
            merged = await run_in_pieces(work)
        except RecursionError:
            context.degrade("the answers are nested too deeply to be merged; the best whole one stands")
            return Answer(context.best(responses), "selected")
        shares = merged.shares
        value = await self._judged(context, judges, merged, responses)
        if not context.accepts(value):
            value = merged.value
        if not context.accepts(value):
            context.degrade("the merged fields do not satisfy the schema; the best whole answer stands")
            return Answer(context.best(responses), "selected", agreement=shares)
        confidence = sum(shares.values()) / len(shares) if shares else 1.0
        answer = ModelResponse(
            model_name="fields",
            stage="fields",
            content=msgspec.json.encode(value).decode(),
            output=value,
            attempts=0,
            finish_reason="stop",
        )
        return Answer(answer, "merged", min(1.0, confidence), "votes", shares)

    def _judges(self, context: RunContext) -> Sequence[Model]:
        if self.judge is None:
            return context.models
        check_named("judge", [self.judge], [model.name for model in context.models])
        return [model for model in context.models if model.name == self.judge]

    async def _judged(
        self,
        context: RunContext,
        judges: Sequence[Model],
        merged: MergedFields,
        responses: Sequence[ModelResponse],
    ) -> object:
        """Return the merged value with what the judge decided; as it is where there is nothing to decide."""
        disputed = {
            path: field
            for path, field in sorted(merged.fields.items(), key=lambda each: (each[1].share, each[0]))
            if field.share < self.threshold and len(field.choices) > 1
        }
        if not disputed:
            return merged.value
        asked = dict(list(disputed.items())[:_MOST_DISPUTED])
        candidates = _candidates(asked, responses)
        with context.step("judge"):
            decision = await context.ask_first(context.compose(_JUDGE, candidates), models=judges)
        chosen = {} if decision is None else _decided(decision.content)
        value = with_choices(merged, {path: chosen[path] for path in asked if path in chosen})
        left = [path for path in disputed if path not in chosen]
        if left:
            shown = ", ".join(left[:5]) + (", …" if len(left) > 5 else "")  # noqa: PLR2004 - enough to see
            context.note(f"no judge decided these disputed fields, where most weight stands: {shown}")
        return value


def _candidates(disputed: dict[str, Field], responses: Sequence[ModelResponse]) -> list[ModelResponse]:
    """Return answers that have, in place of the whole, only their values of the disputed fields.

    The values are dealt out by their number: what the judge reads is every value, and not whose it is.
    """
    most = max(len(field.choices) for field in disputed.values())
    found = []
    for number in range(most):
        values = {
            path: field.choices[number] for path, field in disputed.items() if number < len(field.choices)
        }
        text = msgspec.json.encode(values).decode()
        found.append(replace(responses[number], content=text, output=None))
    return found


def _decided(text: str) -> dict[str, object]:
    for piece in json_candidates(text):
        try:
            return msgspec.json.decode(piece, type=dict[str, object])
        except (msgspec.DecodeError, ValueError, RecursionError):
            continue
    return {}
