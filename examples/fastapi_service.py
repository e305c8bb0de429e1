"""A web service on FastAPI and uvicorn, with the tokens of every model as server-sent events.

Start it, in a checkout, with ``uv run --group examples examples/fastapi_service.py --port 8000``, or with
python where ``fastapi`` and ``uvicorn`` are installed. Then type

    curl -N "http://127.0.0.1:8000/stream?question=Why+is+the+sky+blue"
    curl "http://127.0.0.1:8000/ask?question=Why+is+the+sky+blue"
    curl "http://127.0.0.1:8000/health"

Ctrl-C or SIGTERM ends it once the requests under way are answered. With ``--demo`` it asks itself and
ends. It asks the voices written below, or the models that are given as ``--model provider:model``.
"""

import argparse
import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import msgspec
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from ultra import BadCall, MultiLLMOrchestrator, RunStream
from ultra.clients import connect


class Voice:
    """A client made for asyncio, which streams."""

    async def generate(self, prompt: str, *, system: str | None = None) -> str:
        """The whole answer."""
        return "".join([piece async for piece in self.stream(prompt, system=system)])

    async def stream(self, prompt: str, *, system: str | None = None) -> AsyncIterator[str]:
        """The answer, word by word."""
        task = "I read the answers to:" if system else "You asked:"
        for word in f"{task} {prompt.splitlines()[0].removeprefix('Question: ')}".split():
            await asyncio.sleep(0.05)
            yield f"{word} "


def make_orchestrator(models: Sequence[str]) -> MultiLLMOrchestrator:
    """Models such as ``openai:gpt-5-mini`` or ``local:careful``; where none are given, three voices."""
    orchestrator = MultiLLMOrchestrator(timeout=60)
    for name in models or ("careful", "concise", "creative"):
        orchestrator.register_model(name, connect(name) if models else Voice())
    return orchestrator


def make_app(orchestrator: MultiLLMOrchestrator) -> FastAPI:
    """The service. The orchestrator lives for as long as the application does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with orchestrator:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.exception_handler(BadCall)
    async def refuse(_: Request, error: BadCall) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=400)

    @app.get("/ask")
    async def ask(question: str) -> dict[str, Any]:
        results = await orchestrator.process_responses(question)
        answers = {name: str(response) for name, response in results["initial_responses"].items()}
        return {"status": results.status, "answers": answers, "together": str(results.final_synthesis)}

    @app.get("/stream")
    async def stream(question: str) -> StreamingResponse:
        run = orchestrator.stream_responses(question)  # a bad question is refused here
        return StreamingResponse(server_sent(run), media_type="text/event-stream")

    @app.get("/health")
    async def health() -> JSONResponse:
        models = orchestrator.health()
        status = 200 if any(model.status != "down" for model in models.values()) else 503
        return JSONResponse(msgspec.to_builtins(models), status_code=status)

    return app


async def server_sent(run: RunStream) -> AsyncIterator[bytes]:
    """The events of a run as an event stream of JSON; who hangs up, ends the run."""
    async with run:
        async for event in run:
            yield b"data: " + msgspec.json.encode(event) + b"\n\n"


async def show(address: str) -> None:
    """Ask the service, and print what it sends."""
    async with (
        httpx.AsyncClient(trust_env=False, timeout=60) as client,
        client.stream("GET", f"{address}/stream", params={"question": "Why is the sky blue?"}) as response,
    ):
        async for line in response.aiter_lines():
            print(line, flush=True)


async def main(port: int, models: Sequence[str], *, demo: bool) -> None:
    """Serve until a signal comes, or until the demonstration is over."""
    listener = socket.create_server(("127.0.0.1", port))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = make_app(make_orchestrator(models))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=30))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(sockets=[listener]))
        print(f"listening on {address}", flush=True)
        if demo:
            await show(address)
            server.should_exit = True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ultra as a web service on FastAPI.")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument("--demo", action="store_true", help="ask once, print what comes, and end")
    parser.add_argument("--model", action="append", default=[], help="provider:model, as often as wanted")
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(main(options.port, options.model, demo=options.demo))
