"""One orchestrator for the life of a program: models come and go, weights change, a model crashes.

Start it with ``python examples/long_lived_service.py``. The service below lives in a nursery, as a part
of a larger trio program would; it answers a few questions, prints its tree, and ends by itself.
"""

import trio

from ultra import MultiLLMOrchestrator, RetryPolicy


class Backend:
    """A model that is told when to be unwell."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ill = False

    async def generate(self, prompt: str, *, system: str | None = None) -> str:
        """Answer `prompt`, or fail. What is declared here is passed: a synthesis has a system prompt."""
        await trio.sleep(0.01)
        if self.ill:
            raise ConnectionError(f"{self.name} cannot be reached")
        task = "merges the answers to" if system else "answers"
        return f"{self.name} {task}: {prompt.splitlines()[0]}"


async def serve(orchestrator: MultiLLMOrchestrator, questions: trio.MemoryReceiveChannel[str]) -> None:
    """Answer questions as they come, many at once."""

    async def answer(question: str) -> None:
        results = await orchestrator.process_responses(question, stages=["initial", "synthesis"])
        failed = {failure.model_name for failure in results["failures"]}
        note = f", without {', '.join(sorted(failed))}" if failed else ""
        print(f"{results['status']}{note}: {results['final_synthesis']}")

    async with trio.open_nursery() as nursery:
        async for question in questions:
            nursery.start_soon(answer, question)


async def main() -> None:
    """Start the service, ask it things while it changes, and let it drain."""
    primary, spare = Backend("primary"), Backend("spare")
    orchestrator = MultiLLMOrchestrator(retry=RetryPolicy(max_retries=1, initial=0.01))
    orchestrator.register_model("primary", primary, weight=2.0)
    orchestrator.register_model("spare", spare)

    async with trio.open_nursery() as nursery:
        await nursery.start(orchestrator.run)
        send, receive = trio.open_memory_channel[str](16)
        async with trio.open_nursery() as requests:
            requests.start_soon(serve, orchestrator, receive)
            async with send:
                await send.send("Is all well?")
                await trio.sleep(0.1)
                primary.ill = True
                await send.send("And now that the primary is ill?")
                await trio.sleep(0.2)
                orchestrator.register_model("newcomer", Backend("newcomer"), weight=5.0)
                orchestrator.set_model_weight("primary", 0.1)
                await send.send("Who answers after the change?")
        print(orchestrator.tree())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
