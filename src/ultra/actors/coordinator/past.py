"""The conversation before the question, as those who read answers get it: messages ahead of their prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ultra.actors.coordinator.written import Written
from ultra.messages.chat import ChatMessage, ReasoningPart, TextPart
from ultra.messages.conversation import with_system
from ultra.messages.rendering import as_text, told, without_media
from ultra.messages.tokens import estimate_message, estimate_request, estimate_tokens
from ultra.prompts.fitting import cut_middle
from ultra.prompts.history import KeptHistory, fit_history, frame_of, history_of, media_of

if TYPE_CHECKING:
    from ultra.messages.chat import Part
    from ultra.messages.request import ModelRequest
    from ultra.prompts.composing import Composer
    from ultra.strategies.base import Model

__all__ = ["Past"]


class Past:
    """What `request` has beside the words of its question.

    These are the messages before the question, and the images and documents in the question itself.

    Attributes:
        text: all text of the history, as far as a fence must not occur in it.
    """

    def __init__(self, request: ModelRequest) -> None:
        history = history_of(request.messages)
        self._media = ChatMessage("user", media_of(request))
        self._history = history
        self._seen: dict[tuple[bool, bool], tuple[tuple[ChatMessage, ...], ChatMessage]] = {}
        self._frame = frame_of(request)
        reasoning = (part.text for each in history for part in each.parts if isinstance(part, ReasoningPart))
        self.text = "\n".join((as_text(history), *reasoning)) if history else ""

    def written(self, composer: Composer, model: Model, budget: int | None) -> Written:
        """Return the request by which `model` reads: the history, and the composed prompt as last message.

        With a `budget`, the request has at most so many tokens, by estimate. The oldest turns go first; only
        then are texts cut.

        Raises:
            ModelError: not even the prompt alone can be made so short (kind ``bad_request``).
        """
        history, question = self._as_seen(model)
        media = question.parts
        cuts: dict[str, int] = {}
        if budget is None:
            prompt = composer.prompt_for(model.name)
            kept = KeptHistory(history)
        else:
            needed = estimate_message(question)
            if needed > budget // 2:
                media = (TextPart(cut_middle("\n".join(map(told, media)), budget // 4)),)
                cuts["question"] = needed - estimate_message(ChatMessage("user", media))
                needed -= cuts["question"]
            room = budget - needed - estimate_request(self._frame)
            prompt = composer.prompt_for(model.name, room)
            text = estimate_tokens(prompt.user) + estimate_tokens(prompt.system)
            kept = fit_history(history, room - text)
        content: str | tuple[Part, ...] = (*media, TextPart(prompt.user)) if media else prompt.user
        messages = with_system((*kept.messages, ChatMessage("user", content)), prompt.system)
        for cut in prompt.cuts:
            part = cut.model_name or cut.part
            cuts[part] = cuts.get(part, 0) + cut.tokens
        if kept.left_out:
            cuts["history"] = kept.tokens
        return Written(replace(self._frame, messages=messages), cuts, kept.left_out)

    def _as_seen(self, model: Model) -> tuple[tuple[ChatMessage, ...], ChatMessage]:
        """Return the history, and a message with the media of the question, as `model` gets them."""
        images, files = model.images is not False, model.files is not False
        if (images, files) not in self._seen:
            *history, question = without_media((*self._history, self._media), images=images, files=files)
            self._seen[images, files] = tuple(history), question
        return self._seen[images, files]
