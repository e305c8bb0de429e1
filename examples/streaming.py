"""What every model says, while it says it: the events of a run, read as they come.

Start it with ``python examples/streaming.py "Why is the sky blue?"``. It asks the embedded model, which
the extra ``local`` brings; without that, three voices written below stand in. The same code runs under
``asyncio.run`` instead of ``trio.run``, if the voices' own ``trio.sleep`` is exchanged.
"""

import sys
from collections.abc import AsyncIterator

import trio

from ultra import MissingExtra, MultiLLMOrchestrator
from ultra.clients import connect
from ultra.events import Chunk, ModelFailed, ModelRetrying, RunCompleted, StageStarted


class Voice:
    """A client streams if it has ``stream(prompt)`` besides ``generate(prompt)``."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def generate(self, prompt: str, *, system: str | None = None) -> str:
        """The whole answer."""
        return "".join([piece async for piece in self.stream(prompt, system=system)])

    async def stream(self, prompt: str, *, system: str | None = None) -> AsyncIterator[str]:
        """The answer, word by word."""
        task = "I read the answers to:" if system else "You asked:"
        for word in f"{task} {prompt.splitlines()[0].removeprefix('Question: ')}".split():
            await trio.sleep(0.02)
            yield f"{word} "


def voice(name: str) -> object:
    """A voice of the embedded model, or one from above."""
    try:
        return connect(f"local:{name}")
    except MissingExtra:
        return Voice(name)


async def main(question: str) -> None:
    """Print each event; text of several models comes in turns, so each line says whose it is."""
    async with MultiLLMOrchestrator(timeout=110) as orchestrator:
        for name in ("careful", "concise", "creative"):
            orchestrator.register_model(name, voice(name))

        async with orchestrator.stream_responses(question) as run:
            async for event in run:
                match event:
                    case StageStarted():
                        print(f"\n--- {event.stage}, asks {event.asks} of {', '.join(event.models)}")
                    case Chunk(restart=True):
                        print(f"{event.model_name:>9} | (from the start, after an error) {event.text!r}")
                    case Chunk():
                        print(f"{event.model_name:>9} | {event.text!r}", flush=True)
                    case ModelRetrying():
                        print(f"{event.model_name:>9} | again in {event.wait:.1f} s: {event.message}")
                    case ModelFailed():
                        print(f"{event.model_name:>9} | failed: {event.failure}")
                    case RunCompleted():
                        print(f"\n=== together ({event.result.status})\n{event.result.final_synthesis}")
                    case _:
                        pass


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "What is the capital of France?")
