"""`ultra serve` for the length of a block, with simulated models: what the examples of other frameworks ask.

    pip install "ultra-llm[cli,serve]"

A service of your own runs for good, ``ultra serve --config ultra.toml``, and its models are real. This one
has two models of a simulated provider, which make up what they say, and an ensemble of both; it listens on a
free port, needs no key, and ends with the block.
"""

import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIGURATION = """
[models.first]
model = "openai:gpt-4o"
base_url = "{url}"
api_key = "any"
weight = 2.0

[models.second]
model = "openai:gpt-4o-mini"
base_url = "{url}"
api_key = "any"

[ensembles.council]
models = ["first", "second"]
stages = ["initial", "synthesis"]
"""


@contextmanager
def serving() -> Iterator[str]:
    """Start the provider and the service, and yield the address of the service."""
    with tempfile.TemporaryDirectory() as directory, started("provider", "--port", "0") as lines:
        variable = next(line for line in lines if "OPENAI_BASE_URL" in line)
        file = Path(directory, "ultra.toml")
        file.write_text(CONFIGURATION.format(url=variable.partition("=")[2].strip("'\"\n; ")), "utf-8")
        with started("serve", "--config", str(file), "--port", "0") as first:
            yield next(first).strip()  # its first line is its address


@contextmanager
def started(*arguments: str) -> Iterator[Iterator[str]]:
    """Run a command of Ultra, and yield the lines that it prints; it is ended with the block."""
    command = [sys.executable, "-m", "ultra", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own
        assert process.stdout is not None
        try:
            yield iter(process.stdout)
        finally:
            process.terminate()


if __name__ == "__main__":
    # No proxy: the service is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with serving() as address, opener.open(f"{address}/v1/models") as answer:
        for model in json.load(answer)["data"]:
            print(f"{model['id']}: {', '.join(model['ultra']['panel'])}")
