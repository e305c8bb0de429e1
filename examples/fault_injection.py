"""Break your own service on purpose: a model that fails, one that crashes, and a virtual clock.

Start it with ``python examples/fault_injection.py``. A fault plan says what goes wrong; the run survives
it, and the plan tells what it did. Minutes of backoff take no time: the clock is trio's mock clock.
"""

import trio
from trio.testing import MockClock

from ultra import MultiLLMOrchestrator
from ultra.faults import FaultPlan


class Voice:
    """A model that takes a second to answer."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def generate(self, prompt: str, *, system: str | None = None) -> str:
        """Answer `prompt`."""
        await trio.sleep(1)
        return f"{self.name} {'merges' if system else 'answers'}: {prompt.splitlines()[0]}"


async def main() -> None:
    """Run once, with faults."""
    plan = (
        FaultPlan(seed=7)
        .fail_call("primary", status=503, retry_after=30)  # the provider is overloaded, all the time
        .crash("/models/spare/actor", times=1)  # a bug in the actor, once: the request is redelivered
    )
    async with MultiLLMOrchestrator(max_retries=2, timeout=600, faults=plan) as orchestrator:
        orchestrator.register_model("primary", Voice("primary"), weight=2.0)
        orchestrator.register_model("spare", Voice("spare"))

        results = await orchestrator.process_responses("Is anybody there?", stages=["initial", "synthesis"])

        print(f"{results['status']} after {results['response_time']:.0f} virtual seconds:")
        print(f"  {results['final_synthesis']}")
        for failure in results["failures"]:
            print(f"  {failure}")
        print(orchestrator.tree())
    print(plan)


if __name__ == "__main__":
    trio.run(main, clock=MockClock(autojump_threshold=0))
