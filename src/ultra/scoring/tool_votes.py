"""A vote on calls of tools: which of those that models propose are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from ultra.messages.results import ModelResponse
from ultra.messages.tools import canonical_arguments
from ultra.scoring.weight_sums import summed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.messages.chat import ToolCall

__all__ = ["VotedCalls", "vote_on_calls"]


class VotedCalls(Struct, frozen=True):
    """The outcome of a vote: `response` has the calls that are made, and no other.

    `share` (0..1) is the part of the weight behind the call that has the least.
    """

    response: ModelResponse
    share: float


def vote_on_calls(proposals: Sequence[ModelResponse], weights: Mapping[str, float]) -> VotedCalls | None:
    """Return the calls that a strict majority of the weight makes; None: no tool is called.

    Calls are equal that have the same name and equal arguments, as `canonical_arguments` writes them. Each
    call is voted on by itself, and each model has one vote for it, with its weight; where all weights are 0,
    all have the same. A call without a majority is never made, but for one case: where neither any call nor
    calling none has a majority, the first proposal stands as it is.

    The response is that of the first model which makes these calls and no other, else of the first that
    makes them all. Where none does, the calls are gathered from several, and the response has no
    `reasoning_parts`, since these belong to the calls of one model.

    Args:
        proposals: one answer of each model, that of the primary model first.
        weights: those of the models.
    """
    if not any(weights[each.model_name] for each in proposals):
        weights = {each.model_name: 1.0 for each in proposals}
    made = [{_key(call): call for call in reversed(each.tool_calls)} for each in proposals]
    behind: dict[_Key, list[float]] = {}
    for proposal, calls in zip(proposals, made, strict=True):
        for key in calls:
            behind.setdefault(key, []).append(weights[proposal.model_name])
    cast = summed(weights[each.model_name] for each in proposals)
    votes = {key: summed(each) for key, each in behind.items()}
    winners = {key for key, weight in votes.items() if weight > cast / 2}
    against = summed(weights[each.model_name] for each in proposals if not each.tool_calls)
    if not winners:
        if not proposals or against > cast / 2 or not proposals[0].tool_calls:
            return None
        return VotedCalls(proposals[0], min(votes[key] for key in made[0]) / cast)
    share = min(votes[key] for key in winners) / cast
    whole = [(len(calls), at) for at, calls in enumerate(made) if winners <= calls.keys()]
    if not whole:
        return VotedCalls(_gathered(proposals, made, winners), share)
    _, at = min(whole)
    kept = [call for key, call in reversed(made[at].items()) if key in winners]
    return VotedCalls(replace(proposals[at], tool_calls=tuple(kept)), share)


_Key = tuple[str, str]


def _key(call: ToolCall) -> _Key:
    return call.name, canonical_arguments(call.arguments)


def _gathered(
    proposals: Sequence[ModelResponse], made: Sequence[Mapping[_Key, ToolCall]], winners: set[_Key]
) -> ModelResponse:
    calls = [next(each[key] for each in made if key in each) for key in sorted(winners)]
    first = next(each for each, calls in zip(proposals, made, strict=True) if winners & calls.keys())
    # A signature is for the provider of the model that made the call.
    own = {id(call) for call in first.tool_calls}
    kept = tuple(call if id(call) in own else replace(call, signature=None) for call in calls)
    return replace(first, tool_calls=kept, reasoning_parts=())
