"""A limit on memory: a large answer is a failed attempt there, and the process lives."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest

from helpers.command_line import environment, programs

PROGRAM = """
    import resource, sys
    import httpx, trio
    from ultra.clients import connect
    from ultra.errors import ModelError

    TEXTS = {"long": "word " * 4_000_000, "short": "yes"}
    BODIES = {name: httpx.Response(200, json={"choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": text}}]}).content for name, text in TEXTS.items()}

    class Transport(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            name = "long" if b"long" in request.content else "short"
            return httpx.Response(200, content=BODIES[name], headers={"content-type": "application/json"})

    async def main():
        client = connect("openai:m", api_key="x", transport=Transport())
        await client.generate("short")
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        # Room for the bytes to be joined, and not for the text.
        resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 2**20, resource.RLIM_INFINITY))
        try:
            await client.generate("long")
        except (MemoryError, ModelError) as error:
            cause = error if isinstance(error, MemoryError) else error.__cause__
            print("no memory" if isinstance(cause, MemoryError) else error)
        print((await client.generate("short")).content)

    trio.run(main)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are Linux's")
@pytest.mark.parametrize("mebibytes", [8, 21, 30, 41])
def test_an_answer_for_which_there_is_no_memory_ends_no_process(mebibytes: int) -> None:
    command = [str(programs() / "python"), "-c", dedent(PROGRAM), str(mebibytes)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "no memory\nyes\n"), done.stderr
