"""An ensemble as a workflow of DBOS: killed in the middle, it goes on, and no answer is asked for twice.

Start it with ``python examples/durable_dbos.py``; it needs the package ``dbos``, which keeps its state in a
SQLite file here, and in Postgres elsewhere. Three models are asked, and one of them merges their answers. The
process is killed when two answers are there; another one then ends the run. It takes a few seconds, and ends
by itself.

The run is one workflow. Each call of a model is another one, whose id says what is asked: DBOS keeps its
answer for whoever starts a workflow of the same id. So the run need not be deterministic: after a crash it
starts again, and only what has no answer yet is asked for.
"""

import asyncio
import hashlib
import subprocess
import sys
import tempfile
import time
from contextvars import Context
from pathlib import Path

from dbos import DBOS, DBOSClient, SetWorkflowID  # pyright: ignore[reportMissingImports]

from ultra import MultiLLMOrchestrator

QUESTION = "What is the capital of France?"
SECONDS = {"quick": 0.05, "steady": 0.1, "slow": 3.0}
"""The models, and how long each takes to answer."""

TIMEOUT = 60.0
"""Seconds after which the example gives up, whatever hangs."""


def note_call(folder: str, model: str) -> None:
    """Count a call, as a provider would."""
    with Path(folder, "calls").open("a") as calls:
        calls.write(f"{model}\n")


async def ask_provider(folder: str, model: str, prompt: str) -> str:
    """Ask the provider of a model: here would stand a call over the network, which costs money."""
    note_call(folder, model)
    await asyncio.sleep(SECONDS[model])
    return "Paris." if prompt == QUESTION else "They agree: Paris."


async def paid_answer(folder: str, model: str, prompt: str) -> str:
    """Ask once, whatever becomes of the process."""
    answer = await DBOS.run_step_async({"name": model}, ask_provider, folder, model, prompt)
    return str(answer)


class DurableModel:
    """A model whose answers DBOS keeps."""

    def __init__(self, folder: str, name: str) -> None:
        self.folder = folder
        self.name = name

    async def generate(self, prompt: str, *, system: str | None = None) -> str:
        """Return the answer to a prompt: the one that DBOS has of this run, or a new one."""
        asked = hashlib.blake2b(f"{self.name}\0{system}\0{prompt}".encode(), digest_size=16)
        answering = self._answer(f"{DBOS.workflow_id}-{asked.hexdigest()}", prompt)
        # In a context of its own: it is no step of the run, whose calls may come in any order.
        return await asyncio.create_task(answering, context=Context())

    async def _answer(self, workflow_id: str, prompt: str) -> str:
        with SetWorkflowID(workflow_id):
            handle = await DBOS.start_workflow_async(durable_answer, self.folder, self.name, prompt)
        return str(await handle.get_result())


async def ensemble(folder: str, question: str) -> str:
    """Ask all models, and let one merge their answers."""
    # Prompts with answers in them are the same in each process, as those of the step before it must be, where
    # the secret is the same that fences the answers. The file keeps it, and here it keeps nothing else.
    orchestrator = MultiLLMOrchestrator(cache=f"sqlite:///{folder}/secret.db")
    for name in SECONDS:
        orchestrator.register_model(name, DurableModel(folder, name))
    stages = ["initial", "synthesis"]
    async with orchestrator:
        results = await orchestrator.process_responses(question, stages=stages, use_cache=False)
    return str(results["final_synthesis"])


durable_answer = DBOS.workflow()(paid_answer)
durable_ensemble = DBOS.workflow()(ensemble)


def state_of(folder: str) -> str:
    """Return where DBOS keeps its state."""
    return f"sqlite:///{folder}/dbos.sqlite"


async def run(folder: str) -> None:
    """Begin the run, or go on with it, and print its answer."""
    with SetWorkflowID("capital"):
        handle = await DBOS.start_workflow_async(durable_ensemble, folder, QUESTION)
    print("asking", flush=True)
    print(f"answer: {await handle.get_result()}", flush=True)


def work(folder: str) -> None:
    """Be the process that is killed, or the one that goes on."""
    DBOS(config={"name": "ultra", "system_database_url": state_of(folder), "log_level": "ERROR"})
    DBOS.launch()
    asyncio.run(run(folder))
    DBOS.destroy()


def started(folder: str) -> subprocess.Popen[str]:
    """Start such a process."""
    arguments = [sys.executable, __file__, folder]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this very file


def kill_in_the_middle(folder: str) -> None:
    """Start a process, and kill it as soon as two answers are there."""
    with started(folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asking\n"
        client = DBOSClient(system_database_url=state_of(folder))
        end = time.monotonic() + TIMEOUT
        while len(client.list_workflows(status="SUCCESS")) < len(SECONDS) - 1 and time.monotonic() < end:
            time.sleep(0.02)
        client.destroy()
        process.kill()
    print("killed, when two of three answers were there", flush=True)


def main() -> None:
    """Kill a process, and let another one go on."""
    with tempfile.TemporaryDirectory() as folder:
        kill_in_the_middle(folder)
        with started(folder) as process:
            told, _ = process.communicate(timeout=TIMEOUT)
        print(told.splitlines()[-1])
        calls = Path(folder, "calls").read_text().split()
        # The slow one was asked when the process was killed, so twice; the last call is that of the merger.
        print(f"calls: {', '.join(calls[:-1])}; then {calls[-1]}, which merged")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(sys.argv[1])
    else:
        main()
