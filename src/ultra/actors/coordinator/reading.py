"""The prompts by which models read what others wrote, drawn once for all who read the same answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra.errors import ModelError
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

__all__ = ["Reader", "Written", "candidate_name"]

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
    ) -> Callable[[Model], Written]:
        """Return what writes the prompt of `task` for one model.

        It raises `ModelError` (kind ``bad_request``) where there is nothing to read, or it does not fit.
        """
        name = task if isinstance(task, str) else "reading"
        if not responses:
            return _nothing_to_read(name)
        tasks = {**TASKS, "judge": JUDGE}
        composer = Composer(
            name,
            task=tasks.get(task) if isinstance(task, str) else task,
            question=self._request.prompt,
            candidates=self._label(tuple(_candidate(each, weights) for each in responses)),
            analyses=[_candidate(each, weights) for each in analyses],
            fencing=self._fencing,
            system=system,
        )

        def write(model: Model) -> Written:
            window = model.context_window
            prompt: Prompt = composer.prompt_for(
                model.name, None if window is None else prompt_budget(window)
            )
            request = ModelRequest.of(prompt.user, prompt.system, self._request.options)
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


def _nothing_to_read(stage: str) -> Callable[[Model], Written]:
    def write(_: Model) -> Written:
        raise ModelError(f"stage {stage!r} has no answers to read", kind="bad_request")

    return write
