"""What each model of a run is asked: written for it, fitted to it, shorter where it was too long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ultra.actors.coordinator.reading import is_too_long
from ultra.errors import ModelError
from ultra.messages.request import ModelRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ultra.actors.coordinator.fitted_requests import FittedRequests
    from ultra.actors.coordinator.reading import Reader
    from ultra.actors.coordinator.steps import OpenStep, Steps
    from ultra.actors.coordinator.tool_turn import ToolTurn
    from ultra.messages.options import RunOptions
    from ultra.messages.results import ModelResponse
    from ultra.prompts.composing import Task
    from ultra.strategies.base import Candidates, Model, Write

__all__ = ["RequestWriter"]


class RequestWriter:
    """Writes the requests of one run.

    Args:
        question: what the run asks, as its readers see it.
        options: those of the run; `per_model` are the options that one model alone has.
        weights: of the models, by name.
        reader: composes the prompts by which models read answers.
        fitted: fits requests to the models.
        tools: adds the tools for the model that has them.
        steps: of the run.
    """

    def __init__(
        self,
        question: ModelRequest,
        options: RunOptions,
        weights: Mapping[str, float],
        *,
        reader: Reader,
        fitted: FittedRequests,
        tools: ToolTurn,
        steps: Steps,
    ) -> None:
        self._question = question
        self._options = options
        self._weights = weights
        self._reader = reader
        self._fitted = fitted
        self._tools = tools
        self._steps = steps
        self._refused_by: dict[Callable[[Model], ModelRequest], set[str]] = {}  # by what writes prompts

    def written(self, step: OpenStep, model: Model, write: Write, sample: int) -> ModelRequest:
        """Return what a model is asked; raise `ModelError` where the prompt cannot fit it."""
        request = self._offered(step, model, write)
        if isinstance(write, ModelRequest) or write not in self._refused_by:  # those of `compose` do fit
            request = self._fitted.fitted(step, model, request)
        return replace(request, sample=sample) if sample else request

    def own(self, model: Model, request: ModelRequest) -> ModelRequest:
        """Return what a model is asked, with the options that it alone has in this run."""
        own = self._options.per_model.get(model.name)
        if own is None:
            return request
        return own.applied(request, answers=request.prompt == self._question.prompt)

    def compose(
        self,
        task: Task | str,
        candidates: Candidates,
        *,
        analyses: Sequence[ModelResponse],
        system: str | None,
        max_tokens: int | None,
    ) -> Callable[[Model], ModelRequest]:
        """Write prompts by which models read answers; see `RunContext.compose`."""
        composer = self._reader.composer(task, candidates, self._weights, analyses, system)
        refused: set[str] = set()

        def write(model: Model) -> ModelRequest:
            written = composer(model, shorter=True) if model.name in refused else composer(model)
            self._fitted.tell_unseen(model)
            if written.cuts:
                self._fitted.tell_cuts(self._steps.current(), model, written)
            if max_tokens is None:
                return written.request
            options = replace(written.request.options, max_tokens=max_tokens)
            return replace(written.request, options=options)

        self._refused_by[write] = refused
        return write

    def shortened(
        self, step: OpenStep, model: Model, write: Write, sample: int, error: Exception
    ) -> ModelRequest | None:
        """Return a shorter prompt for a model that refused one for its length; None: there is none."""
        if not is_too_long(error):
            return None
        refused = None if isinstance(write, ModelRequest) else self._refused_by.get(write)
        if refused is not None:
            if model.name in refused:
                return None
            refused.add(model.name)
        try:
            request = self._offered(step, model, write)
        except ModelError:
            return None
        if refused is None:
            request = replace(self._fitted.fitted(step, model, request), sample=sample)
            return self._fitted.halved(step, model, request)
        self._fitted.tell_shortened(step, model)
        return replace(request, sample=sample) if sample else request

    def forget(self) -> None:
        """Keep no functions that write prompts, once the run is over: they refer to this."""
        self._refused_by.clear()

    def _offered(self, step: OpenStep, model: Model, write: Write) -> ModelRequest:
        request = write if isinstance(write, ModelRequest) else write(model)
        return self.own(model, self._tools.offered(step, model, request))
