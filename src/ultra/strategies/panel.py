"""What strategies share: the models that their options name, and answers that need no comparing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra._support.checks import did_you_mean, shown
from ultra.errors import BadCall, QuorumNotReached
from ultra.strategies.base import Answer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ultra.messages.results import ModelResponse
    from ultra.strategies.base import Model, OpenStep, RunContext

__all__ = [
    "check_answered",
    "check_model_name",
    "check_named",
    "check_names",
    "check_quorum",
    "needed_of",
    "only_answer",
    "read_and_decide",
    "unanimous_answer",
    "with_first",
    "writers_of",
]


def check_model_name(option: str, given: object) -> None:
    """Raise `BadCall` unless an option is the name of a model, or None."""
    if not (given is None or (isinstance(given, str) and given)):
        raise BadCall(f"{option} is {shown(given)}; it must be the name of a model, or None")


def check_names(option: str, given: object) -> None:
    """Raise `BadCall` unless an option is a tuple of names of models, each of them once, or None."""
    if given is None:
        return
    if not isinstance(given, (tuple, list)) or not all(isinstance(name, str) and name for name in given):
        raise BadCall(f"{option} is {shown(given)}; it must be a tuple of names of models, or None")
    if not given or len(set(given)) < len(given):
        raise BadCall(f"{option} is {shown(given)}; name one model or more, and each once")


def check_named(option: str, named: Iterable[str | None], choices: Collection[str]) -> None:
    """Raise `BadCall` if an option names a model that is none of the `choices`."""
    for name in named:
        if name is not None and name not in choices:
            raise BadCall(
                f"{option} names {name!r}, which is none of the models of this run: "
                f"{', '.join(choices)}{did_you_mean(name, choices)}"
            )


def needed_of(context: RunContext) -> int:
    """Return how many of the models must answer; of those that were chosen, where a strategy did that."""
    models = len(context.models)
    return models if context.options.quorum == "all" else min(context.options.quorum, models)


def check_quorum(context: RunContext, responses: Sequence[ModelResponse], *, most: int | None = None) -> None:
    """Raise `QuorumNotReached` if these answers, of several steps, are of fewer models than the run needs.

    `most` is how many models were to answer at most; None: all of the run.
    """
    needed = needed_of(context) if most is None else min(needed_of(context), most)
    answered = len({response.model_name for response in responses})
    if answered < needed:
        failures = {failure.model_name: failure.message for failure in context.failures}
        raise QuorumNotReached("initial", needed, answered, failures.items())


def check_answered(context: RunContext, responses: Sequence[ModelResponse]) -> None:
    """Raise `QuorumNotReached` where nobody has answered: the budget was used up before the first step."""
    if not responses:
        check_quorum(context, responses, most=1)


def with_first(
    context: RunContext, option: str, name: str | None, others: Sequence[Model]
) -> Sequence[Model]:
    """Return the models with the one of this name first; it need not be one of them.

    Where the run may not ask it any more, or another strategy has chosen others, a notice says so.
    """
    if name is None:
        return others
    first = [model for model in context.models if model.name == name]
    if not first:
        context.note(f"{option} names {name!r}, which is not asked here; the others are asked by weight")
    return [*first, *(model for model in others if model.name != name)]


def writers_of(context: RunContext, responses: Sequence[ModelResponse]) -> list[Model]:
    """Return the models that gave these answers, by weight."""
    names = {response.model_name for response in responses}
    return [model for model in context.models if model.name in names]


def only_answer(context: RunContext, responses: Sequence[ModelResponse], instead_of: str) -> Answer | None:
    """Return the answer that stands because there is no other one; None: there are several.

    Nothing is asked or compared then, and a notice says so; `instead_of` says what is left out.
    """
    if len(responses) != 1:
        return None
    if len(context.models) > 1 or context.options.samples > 1:
        context.note(
            f"only {responses[0].model_name!r} gave a usable answer: it stands, without {instead_of}"
        )
    return Answer(responses[0], "selected")


async def unanimous_answer(context: RunContext, responses: Sequence[ModelResponse]) -> Answer | None:
    """Return the answer of the heaviest model where all mark the same final answer; None elsewhere."""
    if len(responses) > 1 and (await context.agree(responses)).unanimous:
        return Answer(responses[0], "unanimous", 1.0, "votes")
    return None


async def read_and_decide(
    context: RunContext, responses: Sequence[ModelResponse], *, judge: str | None = None
) -> Answer:
    """Let a model read all answers whole, and write the one that stands; by default the heaviest of those.

    Where none can, the best of the answers stands, and the run is degraded.
    """
    models = with_first(context, "judge", judge, writers_of(context, responses))
    with context.step("synthesis") as step:
        decision = await context.ask_first(
            context.compose("synthesis", responses), models=models, within=context.time_left()
        )
    if decision is not None:
        return Answer(decision, "fallback" if step.failures else "primary")
    context.degrade(f"no model could decide{_why(step)}; the best candidate stands in its place")
    return Answer(context.best(responses), "best_candidate")


def _why(step: OpenStep) -> str:
    return ", as the budget is used up" if step.left_out else ""
