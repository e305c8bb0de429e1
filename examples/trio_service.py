"""A web service on trio, served by Hypercorn: an ASGI application of its own, and nothing between.

Start it, in a checkout, with ``uv run --group examples examples/trio_service.py --port 8000``, or with
python where ``hypercorn[trio]`` is installed. Then type

    curl -N "http://127.0.0.1:8000/stream?question=Why+is+the+sky+blue"
    curl "http://127.0.0.1:8000/health"

Ctrl-C or SIGTERM ends it once the requests under way are answered. With ``--demo`` it asks itself and
ends. It asks the voices written below, or the models that are given as ``--model provider:model``.
"""

import argparse
import signal
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import httpx
import msgspec
import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from ultra import BadCall, MultiLLMOrchestrator
from ultra.clients import connect


class Voice:
    """A client made for trio, which streams."""

    async def generate(self, prompt: str, *, system: str | None = None) -> str:
        """The whole answer."""
        return "".join([piece async for piece in self.stream(prompt, system=system)])

    async def stream(self, prompt: str, *, system: str | None = None) -> AsyncIterator[str]:
        """The answer, word by word."""
        task = "I read the answers to:" if system else "You asked:"
        for word in f"{task} {prompt.splitlines()[0].removeprefix('Question: ')}".split():
            await trio.sleep(0.05)
            yield f"{word} "


def make_orchestrator(models: Sequence[str]) -> MultiLLMOrchestrator:
    """Models such as ``openai:gpt-5-mini`` or ``local:careful``; where none are given, three voices."""
    orchestrator = MultiLLMOrchestrator(timeout=60)
    for name in models or ("careful", "concise", "creative"):
        orchestrator.register_model(name, connect(name) if models else Voice())
    return orchestrator


class App:
    """The service, as an ASGI application."""

    def __init__(self, orchestrator: MultiLLMOrchestrator) -> None:
        self.orchestrator = orchestrator

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI's are dicts
        """Answer one request, or follow the server through its life."""
        if scope["type"] == "lifespan":
            await live(receive, send)
            return
        question = parse_qs(scope["query_string"].decode()).get("question", [""])[0]
        match scope["path"]:
            case "/stream":
                await self.stream(question, receive, send)
            case "/health":
                await reply(send, 200, self.orchestrator.health())
            case _:
                await reply(send, 404, {"error": "there are /stream?question=... and /health"})

    async def stream(self, question: str, receive: Any, send: Any) -> None:  # noqa: ANN401
        """Send the events of a run while it goes on; who hangs up, ends the run."""
        try:
            run = self.orchestrator.stream_responses(question)
        except BadCall as error:
            await reply(send, 400, {"error": str(error)})
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_on_disconnect, receive, nursery.cancel_scope)
            async with run:
                await begin(send, 200, b"text/event-stream")
                async for event in run:
                    data = b"data: " + msgspec.json.encode(event) + b"\n\n"
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                await send({"type": "http.response.body"})
            nursery.cancel_scope.cancel()


async def live(receive: Any, send: Any) -> None:  # noqa: ANN401
    """Agree to the start and the end of the server; what there is to start, `main` starts."""
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})


async def cancel_on_disconnect(receive: Any, scope: trio.CancelScope) -> None:  # noqa: ANN401
    """Wait until the peer hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def begin(send: Any, status: int, content_type: bytes) -> None:  # noqa: ANN401
    """Send the head of a response."""
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type)]}
    )


async def reply(send: Any, status: int, content: object) -> None:  # noqa: ANN401
    """Send a whole response of JSON."""
    await begin(send, status, b"application/json")
    await send({"type": "http.response.body", "body": msgspec.json.encode(content)})


async def show(address: str) -> None:
    """Ask the service, and print what it sends."""
    async with (
        httpx.AsyncClient(trust_env=False, timeout=60) as client,
        client.stream("GET", f"{address}/stream", params={"question": "Why is the sky blue?"}) as response,
    ):
        async for line in response.aiter_lines():
            print(line, flush=True)


async def signalled() -> None:
    """Wait for Ctrl-C or SIGTERM."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            return


async def main(port: int, models: Sequence[str], *, demo: bool) -> None:
    """Serve until a signal comes, or until the demonstration is over."""
    orchestrator = make_orchestrator(models)
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    config.graceful_timeout = 30
    shown = trio.Event()
    stop = shown.wait if demo else signalled
    async with trio.open_nursery() as nursery:
        await nursery.start(orchestrator.run)
        async with trio.open_nursery() as serving:
            app: Any = App(orchestrator)
            addresses = await serving.start(partial(serve, app, config, shutdown_trigger=stop))
            print(f"listening on {addresses[0]}", flush=True)
            if demo:
                await show(addresses[0])
                shown.set()
        await orchestrator.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ultra as a web service on trio.")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument("--demo", action="store_true", help="ask once, print what comes, and end")
    parser.add_argument("--model", action="append", default=[], help="provider:model, as often as wanted")
    options = parser.parse_args()
    trio.run(partial(main, options.port, options.model, demo=options.demo))
