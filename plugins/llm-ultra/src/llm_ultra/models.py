"""The models that llm sees, for programs with a loop and without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import llm
from anyio.from_thread import start_blocking_portal

from llm_ultra.answers import answering
from llm_ultra.prompts import ATTACHMENTS, UltraOptions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from llm.models import AsyncConversation, AsyncResponse, Conversation, Prompt, Response

    from llm_ultra.sources import Source

__all__ = ["AsyncUltraModel", "UltraModel"]


class _Shared:
    """What both kinds of models have in common."""

    can_stream = True
    supports_schema = True
    attachment_types = ATTACHMENTS
    Options = UltraOptions
    model_id: str

    def __init__(self, source: Source, name: str) -> None:
        self.model_id = f"ultra/{name}"
        self._source = source
        self._name = name


class UltraModel(_Shared, llm.Model):  # type: ignore[misc] # llm annotates its own as changeable
    """An ensemble, or one model."""

    def execute(
        self,
        prompt: Prompt,
        stream: bool,  # noqa: FBT001 - llm's
        response: Response,
        conversation: Conversation | None,  # noqa: ARG002 - the prompt has its messages
    ) -> Iterator[str]:
        """Yield the answer. The run has a thread of its own, and ends with this."""
        with (
            start_blocking_portal("trio") as portal,
            portal.wrap_async_context_manager(
                answering(self._source, self._name, prompt, stream=stream)
            ) as answer,
        ):
            while (text := portal.call(answer.next)) is not None:
                if text:
                    yield text
            answer.note_in(response)


class AsyncUltraModel(_Shared, llm.AsyncModel):  # type: ignore[misc] # as above
    """The same, for programs on asyncio."""

    async def execute(
        self,
        prompt: Prompt,
        stream: bool,  # noqa: FBT001 - llm's
        response: AsyncResponse,
        conversation: AsyncConversation | None,  # noqa: ARG002 - the prompt has its messages
    ) -> AsyncGenerator[Any, None]:
        """Yield the answer; closing this cancels the run."""
        async with answering(self._source, self._name, prompt, stream=stream) as answer:
            while (text := await answer.next()) is not None:
                if text:
                    yield text
            answer.note_in(response)
