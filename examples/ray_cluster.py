"""Models on two machines of a Ray cluster, played by two raylets of this one: extra ``ray``.

Start it with ``python examples/ray_cluster.py``. Each model runs in a process of its own, on the machine that
has what it needs. They answer a question together; then one process is killed, and the supervisor starts it
again. It takes about half a minute, most of which is Ray's start, and ends by itself.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from functools import partial

# Before Ray is imported: no reports to its makers, and workers that use this very environment.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}

import ray
import trio
from ray.cluster_utils import Cluster

from ultra import MultiLLMOrchestrator
from ultra.cluster.ray import place
from ultra.events import Chunk

TIMEOUT = 120.0
"""Seconds after which the example gives up, whatever hangs."""


class Voice:
    """A model that would load its weights here, in the process where it is made."""

    def __init__(self, style: str) -> None:
        self.style = style

    async def generate(self, prompt: str, *, system: str | None = None) -> str:
        """Answer as a whole."""
        return "".join([piece async for piece in self.stream(prompt, system=system)])

    async def stream(self, prompt: str, *, system: str | None = None) -> AsyncIterator[str]:
        """Answer piece by piece."""
        task = "merged by" if system else "answered by"
        for piece in (f"({self.style}) ", f"{prompt.splitlines()[0]} - ", task, f" process {os.getpid()}"):
            await asyncio.sleep(0.01)
            yield piece


async def main() -> None:
    """Ask, kill a process, and ask again."""
    orchestrator = MultiLLMOrchestrator()
    # On a real cluster: place(partial(Llama, "/weights/llama"), num_gpus=1)
    for side in ("left", "right"):
        model = place(partial(Voice, side), num_cpus=0, resources={side: 1})
        orchestrator.register_model(side, model)

    with trio.fail_after(TIMEOUT):
        async with orchestrator:
            print("streamed:")
            async with orchestrator.stream_responses("Who are you?", stages=["initial"]) as stream:
                async for event in stream:
                    if isinstance(event, Chunk):
                        print(f"  {event.model_name}: {event.text}")
                results = await stream.result()

            answer = results["initial_responses"]["left"].content
            os.kill(int(answer.rpartition(" ")[2]), signal.SIGKILL)
            print("killed the process of the left one; its supervisor starts another")

            results = await orchestrator.process_responses("And now?", stages=["initial", "synthesis"])
            for name, response in results["initial_responses"].items():
                print(f"  {name}: {response.content}")
            print(f"{results['status']}: {results['final_synthesis']}")


def two_machines() -> Cluster:
    """Start a cluster of two machines, as far as Ray can tell."""
    memory = 80 * 2**20
    left = {"num_cpus": 1, "object_store_memory": memory, "resources": {"left": 1}}
    cluster = Cluster(initialize_head=True, head_node_args=left)
    cluster.add_node(num_cpus=1, object_store_memory=memory, resources={"right": 1})
    return cluster


if __name__ == "__main__":
    cluster = two_machines()
    ray.init(address=cluster.address, log_to_driver=False)
    print(f"a cluster of {len(cluster.worker_nodes) + 1} machines")
    try:
        trio.run(main)
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
