"""The prompts by which models read what others wrote, drawn once for all who read the same answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from ultra._support.lazy import lazy_pattern
from ultra.actors.coordinator.past import Past
from ultra.errors import AllAttemptsFailed, ModelError
from ultra.messages.results import sample_name
from ultra.prompts.composing import TASKS, Composer, prompt_budget
from ultra.prompts.fencing import Candidate
from ultra.prompts.history import answer_tokens, tokens_of
from ultra.scoring.judge import JUDGE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ultra.actors.coordinator.written import Written
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import ModelResponse
    from ultra.prompts.composing import Task
    from ultra.prompts.fencing import Fencing, Labelled
    from ultra.strategies.base import Candidates, Model

__all__ = ["Reader", "candidate_name", "is_too_long"]

_TOO_LONG: Final = lazy_pattern(
    r"context.{0,20}(?:length|window|size|limit)|maximum.{0,20}(?:context|token|prompt|input)"
    r"|(?:prompt|input|request|message)s?\b.{0,40}\btoo\s+(?:long|large|big|many)|too\s+many\s+(?:input\s+)?tokens"
    r"|exceeds?.{0,40}(?:context|tokens|length)|input.{0,20}length|string_above_max_length|entity\s+too\s+large",
    re.IGNORECASE,
)
_TOO_LARGE: Final = 413
_TASKS: Final = {**TASKS, "judge": JUDGE}
_QUOTED: Final = 2_000  # characters of an error that are looked through


def candidate_name(response: ModelResponse) -> str:
    """Return the name of an answer among others: its model's, and its sample where it is not the first."""
    return sample_name(response.model_name, response.sample)


class Reader:
    """Composes the reading prompts of one run. `request` is what the run asks."""

    def __init__(self, fencing: Fencing, request: ModelRequest) -> None:
        self._fencing = fencing
        self._request = request
        self._past = Past(request)
        self._labelled: dict[tuple[Candidate, ...], Labelled] = {}

    def composer(
        self,
        task: Task | str,
        responses: Candidates,
        weights: Mapping[str, float],
        analyses: Sequence[ModelResponse],
        system: str | None,
    ) -> Callable[..., Written]:
        """Return what writes the prompt of `task` for one model, if need be half as long as it would be.

        It raises `ModelError` (kind ``bad_request``) where there is nothing to read, or it does not fit.
        """
        name = task if isinstance(task, str) else "reading"
        if callable(responses):
            return self._composer_of_each(task, responses, weights, analyses, system)
        if not responses:
            return _nothing_to_read(name)
        chosen = _TASKS.get(task) if isinstance(task, str) else task
        composer = Composer(
            name,
            task=chosen,
            question=self._request.prompt,
            candidates=self._label(tuple(_candidate(each, weights) for each in responses)),
            analyses=[_candidate(each, weights) for each in analyses],
            fencing=self._fencing,
            system=system,
            beside=self._past.text,
        )

        def write(model: Model, *, shorter: bool = False) -> Written:
            window = model.context_window
            budget = None
            if window is not None:
                answer = answer_tokens(window, self._request.options.max_tokens)
                budget = prompt_budget(window, answer)
            written = self._past.written(composer, model, budget)
            if shorter:
                tokens = sum(map(tokens_of, written.request.messages))
                written = self._past.written(composer, model, tokens // 2)
            if chosen is not None:
                written = written._replace(request=self._formed(written.request, chosen))
            return written

        return write

    def _formed(self, request: ModelRequest, task: Task) -> ModelRequest:
        """Return `request` with what the caller wants of the form of an answer, where `task` writes one.

        A text at which an answer ends may well stand in a ranking, or between the grades of a judge.
        """
        if task.answers:
            return replace(request, output=self._request.output)
        if request.options.stop is None:
            return request
        return replace(request, options=replace(request.options, stop=None))

    def _composer_of_each(
        self,
        task: Task | str,
        read_by: Callable[[Model], Sequence[ModelResponse]],
        weights: Mapping[str, float],
        analyses: Sequence[ModelResponse],
        system: str | None,
    ) -> Callable[..., Written]:
        """Return what writes the prompt of a model of what this very model is to read."""
        known: dict[str, Callable[..., Written]] = {}

        def write(model: Model, *, shorter: bool = False) -> Written:
            if model.name not in known:
                known[model.name] = self.composer(task, read_by(model), weights, analyses, system)
            return known[model.name](model, shorter=shorter)

        return write

    def answers_by_label(
        self, responses: Sequence[ModelResponse], weights: Mapping[str, float]
    ) -> dict[str, ModelResponse]:
        """Return which answer stands behind each label, for those who read these answers."""
        named = {candidate_name(response): response for response in responses}
        return {label: named[name] for label, name in self.labels(responses, weights).items()}

    def labels(self, responses: Sequence[ModelResponse], weights: Mapping[str, float]) -> dict[str, str]:
        """Return whose answer stands behind each label, for those who read these answers."""
        labelled = self._label(tuple(_candidate(each, weights) for each in responses))
        return {text.label: text.model_name for text in labelled.texts}

    def _label(self, candidates: tuple[Candidate, ...]) -> Labelled:
        # Whatever reads them in this run finds them under the same labels, so these are drawn once.
        known = self._labelled.get(candidates)
        if known is None:
            known = self._labelled[candidates] = self._fencing.label(candidates)
        return known


def _candidate(response: ModelResponse, weights: Mapping[str, float]) -> Candidate:
    return Candidate(candidate_name(response), response.content, weights[response.model_name])


def is_too_long(error: BaseException) -> bool:
    """Return whether a model refused its prompt for its length."""
    cause = error.__cause__ if isinstance(error, AllAttemptsFailed) else error
    return (
        isinstance(cause, ModelError)
        and (cause.kind == "bad_request" or cause.status == _TOO_LARGE)
        and (cause.status == _TOO_LARGE or _TOO_LONG().search(cause.message[:_QUOTED]) is not None)
    )


def _nothing_to_read(stage: str) -> Callable[..., Written]:
    def write(_: Model, *, shorter: bool = False) -> Written:  # noqa: ARG001 - as the other
        raise ModelError(f"stage {stage!r} has no answers to read", kind="bad_request")

    return write
