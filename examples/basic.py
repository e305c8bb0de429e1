"""Three voices answer, analyse each other, and are merged: the guide's first example.

Start it with ``python examples/basic.py "Why is the sky blue?"``. It asks the embedded model, which the
extra ``local`` brings; without that, three voices written below stand in.
"""

import sys

import trio

from ultra import MissingExtra, MultiLLMOrchestrator
from ultra.clients import connect


class Parrot:
    """A client is any object with ``async generate(prompt)``."""

    def __init__(self, mood: str) -> None:
        self.mood = mood

    async def generate(self, prompt: str, *, system: str | None = None) -> str:
        """Answer `prompt`. What is declared here is passed: the later stages have a system prompt."""
        await trio.sleep(0.01)
        task = "I read the answers to:" if system else "You asked:"
        return f"({self.mood}) {task} {prompt.splitlines()[0].removeprefix('Question: ')}"


def voice(name: str) -> object:
    """A voice of the embedded model, or a parrot of the same name."""
    try:
        return connect(f"local:{name}")
    except MissingExtra:
        return Parrot(name)


async def main(question: str) -> None:
    """Ask, and print what came of it."""
    async with MultiLLMOrchestrator(max_retries=2, timeout=110) as orchestrator:
        orchestrator.register_model("careful", voice("careful"), weight=3.0)
        orchestrator.register_model("creative", voice("creative"), weight=1.0)
        orchestrator.register_model("concise", voice("concise"), weight=2.0)
        print("asking, by weight:", ", ".join(orchestrator.get_prioritized_models()))

        results = await orchestrator.process_responses(question)

        for name, response in results["initial_responses"].items():
            print(f"\n--- {name}, {response.response_time:.2f} s\n{response}")
        print(f"\n=== together ({results['status']}, by {results['final_synthesis'].model_name})")
        print(results["final_synthesis"])
        for name, metrics in results["metrics"].items():
            print(f"{name}: {metrics.attempts} attempts, {metrics.output_tokens} tokens written")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "What is the capital of France?")
