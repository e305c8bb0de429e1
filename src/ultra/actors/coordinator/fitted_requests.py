"""Requests as each model can read them: media in words for those that see none, old turns left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra.messages.events import PromptFitted
from ultra.prompts.composing import prompt_budget
from ultra.prompts.history import FittedRequest, answer_tokens, count_unseen, fit_request, tokens_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ultra.actors.coordinator.steps import OpenStep
    from ultra.actors.coordinator.written import Written
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import Step
    from ultra.strategies.base import Model

__all__ = ["FittedRequests"]


class FittedRequests:
    """Fits what the strategy of a run asks to the models that it asks, and tells what went.

    Args:
        request: what the run asks.
        steps: those of the run that have ended, as they come.
        notices: where notices are added.
        emit: sends an event.
    """

    def __init__(
        self,
        request: ModelRequest,
        steps: Sequence[Step],
        notices: list[str],
        emit: Callable[[PromptFitted], None],
    ) -> None:
        # Not the run itself: two that refer to each other would keep the question in memory.
        self._request = request
        self._steps = steps
        self._note = notices.append
        self._send = emit
        self._told: dict[tuple[object, ...], None] = {}
        self._halved: dict[tuple[int, str, int], None] = {}

    def fitted(self, step: OpenStep, model: Model, request: ModelRequest) -> ModelRequest:
        """Return `request` as `model` can read it; of the run's own turns, the oldest are left out first."""
        budget = None
        if model.context_window is not None:
            answer = answer_tokens(model.context_window, request.options.max_tokens)
            budget = prompt_budget(model.context_window, answer)
        found = self._fit(model, request, budget)
        if found.images or found.files:
            self._tell_unseen(model, found.images, found.files)
        if found.left_out:
            self._tell_left_out(step, model, found)
        return found.request

    def halved(self, step: OpenStep, model: Model, request: ModelRequest) -> ModelRequest | None:
        """Return `request` with half of its tokens, after `model` refused it for its length.

        None: it has been halved before, or there are no turns to leave out.
        """
        key = len(self._steps), model.name, request.sample
        if key in self._halved:
            return None
        self._halved[key] = None
        found = self._fit(model, request, sum(map(tokens_of, request.messages)) // 2)
        if not found.left_out:
            return None
        self._tell_left_out(step, model, found)
        return found.request

    def tell_cuts(self, step: OpenStep, model: Model, written: Written) -> None:
        """Tell what a reader's prompt lost, in a notice and an event."""
        if not self._is_new(len(self._steps), model.name, *written.cuts.items()):
            return
        texts = {part: tokens for part, tokens in written.cuts.items() if part != "history"}
        if texts:
            parts = ", ".join(f"{part} by about {tokens} tokens" for part, tokens in texts.items())
            self._note(f"cut to fit the context window of {model.name!r} in {step.name!r}: {parts}")
        if written.left_out:
            self._note_left_out(step, model, written.left_out, written.cuts["history"])
        self._emit(step, model, dict(written.cuts), written.left_out)

    def tell_unseen(self, model: Model) -> None:
        """Tell of the media of the run's own conversation that a reader is told in words."""
        counts = count_unseen(self._request.messages, images=model.images, files=model.files)
        if any(counts):
            self._tell_unseen(model, *counts)

    def tell_shortened(self, step: OpenStep, model: Model) -> None:
        """Tell that a reader got a shorter prompt, after it refused the first one."""
        self._note(
            f"{model.name!r} refused the prompt of {step.name!r} for its length, and got a shorter one"
        )

    def _is_new(self, *what: object) -> bool:
        """Return whether this has not been told: the samples of a model, say, all lose the same."""
        known = what in self._told
        self._told[what] = None
        return not known

    def _fit(self, model: Model, request: ModelRequest, budget: int | None) -> FittedRequest:
        own = self._request.messages  # those that a strategy adds always stay
        return fit_request(request, images=model.images, files=model.files, budget=budget, turns=own)

    def _tell_unseen(self, model: Model, images: int, files: int) -> None:
        if not self._is_new(model.name):
            return
        counted = [("image", "images", images), ("file", "files", files)]
        what = " and ".join(f"{n} {one if n == 1 else many}" for one, many, n in counted if n)
        self._note(f"{model.name!r} does not take {what} of the conversation, and was told of it in words")

    def _tell_left_out(self, step: OpenStep, model: Model, found: FittedRequest) -> None:
        if self._is_new(len(self._steps), model.name, found.left_out):
            self._note_left_out(step, model, found.left_out, found.tokens)
            self._emit(step, model, {"history": found.tokens}, found.left_out)

    def _note_left_out(self, step: OpenStep, model: Model, messages: int, tokens: int) -> None:
        oldest = "oldest message" if messages == 1 else f"{messages} oldest messages"
        self._note(
            f"left out to fit the context window of {model.name!r} in {step.name!r}: the {oldest} of the "
            f"conversation, of about {tokens} tokens"
        )

    def _emit(self, step: OpenStep, model: Model, cut: dict[str, int], left_out: int) -> None:
        self._send(
            PromptFitted(stage=step.name, round=step.round, model_name=model.name, cut=cut, left_out=left_out)
        )
