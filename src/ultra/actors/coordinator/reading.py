"""The prompts by which models read what others wrote, drawn once for all who read the same answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from ultra._support.lazy import lazy_pattern
from ultra.errors import AllAttemptsFailed, ModelError
from ultra.messages.request import ModelRequest
from ultra.messages.results import sample_name
from ultra.prompts.composing import TASKS, Composer, prompt_budget
from ultra.prompts.fencing import Candidate
from ultra.scoring.judge import JUDGE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ultra.messages.results import ModelResponse
    from ultra.prompts.composing import Prompt, Task
    from ultra.prompts.fencing import Fencing, Labelled
    from ultra.strategies.base import Model

__all__ = ["Reader", "Written", "candidate_name", "is_too_long"]

_TOO_LONG: Final = lazy_pattern(
    r"context.{0,20}(?:length|window|size|limit)|maximum.{0,20}(?:context|token|prompt|input)"
    r"|(?:prompt|input|request|message)s?\b.{0,40}\btoo\s+(?:long|large|big|many)|too\s+many\s+(?:input\s+)?tokens"
    r"|exceeds?.{0,40}(?:context|tokens|length)|input.{0,20}length|string_above_max_length|entity\s+too\s+large",
    re.IGNORECASE,
)
_TOO_LARGE: Final = 413
_TASKS: Final = {**TASKS, "judge": JUDGE}
_QUOTED: Final = 2_000  # characters of an error that are looked through

Written = tuple[ModelRequest, "Mapping[str, int]"]
"""A request, and by how many tokens its parts had to be cut to fit."""


def candidate_name(response: ModelResponse) -> str:
    """Return the name of an answer among others: its model's, and its sample where it is not the first."""
    return sample_name(response.model_name, response.sample)


class Reader:
    """Composes the reading prompts of one run. `request` is what the run asks."""

    def __init__(self, fencing: Fencing, request: ModelRequest) -> None:
        self._fencing = fencing
        self._request = request
        self._labelled: dict[tuple[Candidate, ...], Labelled] = {}

    def composer(
        self,
        task: Task | str,
        responses: Sequence[ModelResponse],
        weights: Mapping[str, float],
        analyses: Sequence[ModelResponse],
        system: str | None,
    ) -> Callable[..., Written]:
        """Return what writes the prompt of `task` for one model, if need be half as long as it would be.

        It raises `ModelError` (kind ``bad_request``) where there is nothing to read, or it does not fit.
        """
        name = task if isinstance(task, str) else "reading"
        if not responses:
            return _nothing_to_read(name)
        composer = Composer(
            name,
            task=_TASKS.get(task) if isinstance(task, str) else task,
            question=self._request.prompt,
            candidates=self._label(tuple(_candidate(each, weights) for each in responses)),
            analyses=[_candidate(each, weights) for each in analyses],
            fencing=self._fencing,
            system=system,
        )

        def write(model: Model, *, shorter: bool = False) -> Written:
            window = model.context_window
            prompt: Prompt = composer.prompt_for(
                model.name, None if window is None else prompt_budget(window)
            )
            if shorter:
                prompt = composer.shorter_prompt_for(model.name, prompt)
            request = ModelRequest.of(prompt.user, prompt.system, self._request.options)
            if name == "synthesis":  # it writes the answer
                request = replace(request, output=self._request.output)
            return request, {cut.model_name or cut.part: cut.tokens for cut in prompt.cuts}

        return write

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
