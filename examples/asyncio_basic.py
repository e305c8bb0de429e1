"""The guide's first example in a program on asyncio, which needs to know nothing of trio.

Start it with ``python examples/asyncio_basic.py "Why is the sky blue?"``. The three voices are written
below: two are made for asyncio and run on the program's own loop, one is an ordinary function that
blocks and runs in a thread of its own.
"""

import asyncio
import sys
import time

from ultra import MultiLLMOrchestrator


class Voice:
    """A client made for asyncio: any object with ``async generate(prompt)``."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def generate(self, prompt: str, *, system: str | None = None) -> str:
        """Answer `prompt`. What is declared here is passed: the later stages have a system prompt."""
        async with asyncio.timeout(10):  # asyncio's own things work: this runs in a task of its loop
            await asyncio.sleep(0.05)
        return answer(self.name, prompt, system)


def slow_voice(prompt: str, system: str | None = None) -> str:
    """A client can be a function, too. One that blocks holds nobody up."""
    time.sleep(0.05)
    return answer("slow", prompt, system)


def answer(name: str, prompt: str, system: str | None) -> str:
    """What all voices say."""
    task = "I read the answers to:" if system else "You asked:"
    return f"({name}) {task} {prompt.splitlines()[0].removeprefix('Question: ')}"


async def main(question: str) -> None:
    """Ask, time out, and look at what is going on, as any code on asyncio would."""
    async with MultiLLMOrchestrator() as orchestrator:
        orchestrator.register_model("first", Voice("first"), weight=2.0)
        orchestrator.register_model("second", Voice("second"))
        orchestrator.register_model("slow", slow_voice)

        async with asyncio.timeout(60):
            results = await orchestrator.process_responses(question)

        for name, response in results["initial_responses"].items():
            print(f"{name:<7}{response}")
        print(f"together ({results['status']}): {results['final_synthesis']}")

        several = ("One?", "Two?", "Three?")
        answers = await asyncio.gather(*(orchestrator.get_model_response("first", q) for q in several))
        print(*answers, sep="\n")
        print({name: health.status for name, health in orchestrator.health().items()})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "What is the capital of France?"))
