"""One run for a prompt: the text of its answer, piece by piece, and what llm keeps of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import llm

from llm_ultra.prompts import arguments_of, conversation_of
from ultra import UltraError
from ultra.events import Chunk, StageStarted
from ultra.service.answer_text import ANSWER_STEPS
from ultra.service.usage import total_usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm.models import AsyncResponse, Prompt, Response

    from llm_ultra.sources import Source
    from ultra.messages.results import OrchestrationResult
    from ultra.orchestrator.streams import RunStream

__all__ = ["Answer", "answering"]

_REPLACED = (
    "the model that wrote the answer failed in the middle of it, and another one wrote it anew; "
    "--no-stream gives the whole answer"
)


class Answer:
    """The answer of a run that goes on.

    `streams`: its text is given as it is written, where one model writes it; else once it is whole.
    """

    def __init__(self, stream: RunStream, *, streams: bool) -> None:
        self._stream = stream
        self._streams = streams
        self._said = ""
        self._writer: tuple[str, int, str, int] | None = None
        self._one_writes = False
        self._result: OrchestrationResult | None = None

    async def next(self) -> str | None:
        """Return the next piece of text; None: the answer is whole.

        Raises:
            llm.ModelError: the run failed, or what was given so far is no part of its answer.
        """
        if self._result is not None:
            return None
        try:
            async for event in self._stream:
                if isinstance(event, StageStarted) and event.stage in ANSWER_STEPS:
                    self._one_writes = event.asks == "first" or len(event.models) == 1
                elif isinstance(event, Chunk) and event.stage in ANSWER_STEPS and self._one_writes:
                    text = self._taken(event)
                    if text:
                        return text
            self._result = await self._stream.result()
        except UltraError as error:
            raise llm.ModelError(str(error)) from error
        return self._rest(self._result)

    def note_in(self, response: Response | AsyncResponse) -> None:
        """Tell llm what it keeps of the run: tokens, who wrote the answer, and how the run went."""
        result = self._result
        if result is None:
            return
        usage = total_usage(result)
        response.set_usage(input=usage.input, output=usage.output)
        final = result.final_synthesis
        if final is not None:
            response.set_resolved_model(final.model_name)
        response.response_json = {"ultra": _kept(result)}

    def _taken(self, chunk: Chunk) -> str:
        if not self._streams:
            return ""
        writer = (chunk.stage, chunk.round, chunk.model_name, chunk.sample)
        if self._said and (chunk.restart or writer != self._writer):
            raise llm.ModelError(_REPLACED)
        self._writer = writer
        # Space around a text may be taken off it once it is whole.
        text = chunk.text if self._said else chunk.text.lstrip()
        self._said += text
        return text

    def _rest(self, result: OrchestrationResult) -> str:
        if result.final_synthesis is None:
            raise llm.ModelError("the stages of this ensemble write no answer; add 'synthesis' to them")
        whole = result.final_synthesis.content.strip() if self._said else result.final_synthesis.content
        if whole.startswith(self._said):
            return whole[len(self._said) :]
        if whole.rstrip() != self._said.rstrip():
            raise llm.ModelError(_REPLACED)
        return ""


@asynccontextmanager
async def answering(source: Source, name: str, prompt: Prompt, *, stream: bool) -> AsyncIterator[Answer]:
    """Ask, and yield the answer as it comes; leaving the block cancels what is not done.

    Raises:
        llm.ModelError: the configuration, an option or the prompt is not allowed.
    """
    try:
        orchestrator, arguments = source.open(name)
        given = arguments_of(prompt)
        if "strategy" in given:
            arguments.pop("stages", None)  # they belong to the strategy of the ensemble
        arguments |= given
        run = orchestrator.stream_responses(conversation_of(prompt.messages), **arguments)
    except UltraError as error:
        raise llm.ModelError(str(error)) from error
    async with orchestrator, run:
        yield Answer(run, streams=stream and prompt.schema is None)


def _kept(result: OrchestrationResult) -> dict[str, Any]:
    return {
        "run_id": result.run_id,
        "status": result.status,
        "strategy": result.strategy,
        "source": result.synthesis_source,
        "models": list(dict.fromkeys(each.model_name for step in result.steps for each in step.responses)),
        "failed": [{"model": each.model_name, "error": each.kind or each.error} for each in result.failures],
        "confidence": result.confidence,
        "cost": result.cost,
        "seconds": round(result.response_time, 3),
    }
