"""Scoring the answers of a run: by the caller's scorer, and by a judge, which is asked as a model is."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import TYPE_CHECKING

import trio

from ultra._support.cooperative import run_in_pieces
from ultra.actors.coordinator.reading import candidate_name
from ultra.actors.model.messages import Generate, LocalRequest, seconds_until
from ultra.bridge.interruption import is_interruption
from ultra.errors import AllAttemptsFailed, DeadlineExceeded, StageFailed
from ultra.scoring.agreement import count_in_pieces
from ultra.scoring.judge import parse_grades

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ultra.actors.coordinator.messages import Execute, LocalRun, Target
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import ModelResponse
    from ultra.scoring.agreement import Agreed, Scorer
    from ultra.scoring.final_answers import FinalAnswer
    from ultra.strategies.base import RunContext

__all__ = ["agree", "ask_judge", "call_scorer"]


async def agree(
    question: str,
    texts: Mapping[str, str],
    weights: Mapping[str, float],
    read: dict[str, FinalAnswer | None],
    *,
    by_text: bool = False,
) -> Agreed:
    """Count how answers agree, by their names, and let others run after each few milliseconds of it."""
    return await run_in_pieces(count_in_pieces(question, texts, weights, by_text=by_text, read=read))


def call_scorer(
    context: RunContext,
    scorer: Scorer,
    stage: str,
    responses: Sequence[ModelResponse],
    weights: Mapping[str, float],
) -> dict[str, float]:
    """Return the scores (0..1) of the answers, as far as there are any, by `candidate_name`.

    A scorer with a parameter ``weights`` is given these, by the same names. It must not wait: it runs where
    the actors do.

    Raises:
        StageFailed: the scorer raised, or gave something else than scores.
    """
    texts = {candidate_name(response): response.content for response in responses}
    more = {"weights": dict(weights)} if _takes_weights(scorer) else {}
    try:
        return _checked(context.call_user(scorer, context.request.prompt, texts, **more))
    except BaseException as error:
        if is_interruption(error):
            raise
        raise StageFailed(stage, "the scorer", error) from error


def _takes_weights(scorer: Scorer) -> bool:
    try:
        parameter = signature(scorer).parameters.get("weights")
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - whatever the caller's object does when it is looked at
        return False
    return parameter is not None and parameter.kind in {
        Parameter.POSITIONAL_OR_KEYWORD,
        Parameter.KEYWORD_ONLY,
    }


async def ask_judge(
    message: Execute,
    local: LocalRun,
    judge: Target,
    *,
    request: ModelRequest,
    labels: Mapping[str, str],
    candidates: Sequence[str],
    deadline: float,
    pay: Callable[[float | None], None],
) -> dict[str, float]:
    """Return the judge's grades (0..1), by `candidate_name`.

    `pay` is called with what all its attempts have cost, whatever became of them; None: that is not known.

    Raises:
        UltraError: the judge gave no answer.
    """
    generate = Generate(
        id=f"{message.run_id}/judge",
        run_id=message.run_id,
        stage="judge",
        request=request,
        use_cache=message.options.use_cache,
        scope=message.options.scope,
        time_left=seconds_until(deadline),
    )
    slot = local.slots()(judge.name, request)
    beside = LocalRequest(None, local.caller, deadline, slot)
    cost: float | None = None
    try:
        with (
            local.requests.subscribed(generate.id, beside),
            trio.CancelScope(deadline=deadline),
        ):
            reply = await judge.ref.ask(generate)
            cost = reply.cost
            return parse_grades(reply.content, labels, candidates)
    except AllAttemptsFailed as error:
        cost = error.cost
        raise
    finally:
        pay(beside.spent.cost if cost is None else cost)
    raise DeadlineExceeded("it did not answer in time")


def _checked(scores: object) -> dict[str, float]:
    if not isinstance(scores, Mapping):
        raise TypeError(f"it gave {scores!r}; it must give a mapping from model names to scores")
    for name, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
            raise ValueError(f"it gave {name!r} the score {score!r}; a score is a number from 0 to 1")
    return {name: float(score) for name, score in scores.items()}
