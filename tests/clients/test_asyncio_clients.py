"""Clients as programs on asyncio have them, made with aiohttp and with the official openai library.

They talk to a server of aiohttp's on the same loop, beside a client of Ultra's own, which runs on trio.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx  # noqa: F401 - openai mistakes a module for whole that another thread has begun to import
import openai
from aiohttp import web

from helpers.event_loops import on_asyncio
from ultra import AllAttemptsFailed, ModelError, MultiLLMOrchestrator, RetryPolicy
from ultra.clients import OpenAIClient
from ultra.messages.events import Chunk, RunCompleted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ONCE = RetryPolicy(max_retries=0)


class Provider:
    """An OpenAI-compatible server. Answers in words, one event each; hangs or fails when told to."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.hangs = False
        self.asked = asyncio.Event()
        self.disconnected = asyncio.Event()
        self.agents: list[str] = []

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.agents.append(request.headers["user-agent"].split("/")[0])
        self.asked.set()
        if self.status != web.HTTPOk.status_code:
            return web.json_response({"error": {"message": "told to fail"}}, status=self.status)
        if self.hangs:
            return await self._hang()
        words = f"{body['model']} answers {body['messages'][-1]['content']}".split(" ")
        if not body.get("stream"):
            message = {"role": "assistant", "content": " ".join(words)}
            return web.json_response(_completion(choices=[_choice(message=message)]))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number, word in enumerate(words):
            text = word if number == 0 else f" {word}"
            await response.write(_event(_completion(choices=[_choice(delta={"content": text}, stop=None)])))
        await response.write(_event(_completion(choices=[_choice(delta={})])) + b"data: [DONE]\n\n")
        return response

    async def _hang(self) -> web.StreamResponse:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.disconnected.set()
            raise
        raise AssertionError("nobody cancelled this")


def _completion(**fields: Any) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", **fields}


def _choice(*, stop: str | None = "stop", **fields: Any) -> dict[str, Any]:
    return {"index": 0, "finish_reason": stop, **fields}


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


class AiohttpClient:
    """As a user would write it, with aiohttp."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = f"{url}/chat/completions"

    def _body(self, prompt: str, *, stream: bool) -> dict[str, Any]:
        return {"model": "aiohttp", "stream": stream, "messages": [{"role": "user", "content": prompt}]}

    async def generate(self, prompt: str) -> str:
        async with self.session.post(self.url, json=self._body(prompt, stream=False)) as response:
            response.raise_for_status()
            body = await response.json()
        answer: str = body["choices"][0]["message"]["content"]
        return answer

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        async with self.session.post(self.url, json=self._body(prompt, stream=True)) as response:
            response.raise_for_status()
            async for line in response.content:
                data = line.removeprefix(b"data: ").strip()
                if data and data != b"[DONE]":
                    yield json.loads(data)["choices"][0]["delta"].get("content", "")


class AsyncOpenAIClient:
    """As a user would write it, with the official library."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self.client = client

    async def generate(self, prompt: str) -> str:
        completion = await self.client.chat.completions.create(
            model="openai", messages=[{"role": "user", "content": prompt}]
        )
        return completion.choices[0].message.content or ""

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        async with await self.client.chat.completions.create(
            model="openai", messages=[{"role": "user", "content": prompt}], stream=True
        ) as stream:
            async for chunk in stream:
                yield chunk.choices[0].delta.content or ""


@asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    served = Provider()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", served.complete)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield served
    finally:
        await runner.cleanup()


@asynccontextmanager
async def three_clients(url: str) -> AsyncIterator[MultiLLMOrchestrator]:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
        openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client,
        MultiLLMOrchestrator(retry=ONCE) as orchestrator,
    ):
        orchestrator.register_model("aiohttp", AiohttpClient(session, url), weight=3)
        orchestrator.register_model("openai", AsyncOpenAIClient(client), weight=2)
        own = OpenAIClient("ultra", provider="test", base_url=url, api_key="none", trust_env=False)
        orchestrator.register_model("ultra", own)
        yield orchestrator


ANSWERS = {name: f"{name} answers What is it?" for name in ("aiohttp", "openai", "ultra")}


@on_asyncio
async def test_clients_of_three_libraries_answer_in_one_run() -> None:
    async with provider() as served, three_clients(served.url) as orchestrator:
        results = await orchestrator.process_responses("What is it?")

    assert {name: str(response) for name, response in results.initial_responses.items()} == ANSWERS
    assert results.status == "success"
    assert str(results.final_synthesis).startswith("aiohttp answers ")
    assert sorted(served.agents[:3]) == ["AsyncOpenAI", "Python", "ultra-llm"]


@on_asyncio
async def test_clients_of_three_libraries_stream_in_one_run() -> None:
    async with (
        provider() as served,
        three_clients(served.url) as orchestrator,
        orchestrator.stream_responses("What is it?", stages=["initial"]) as run,
    ):
        events = [event async for event in run]
        results = await run.result()

    texts = dict.fromkeys(ANSWERS, "")
    for event in events:
        if isinstance(event, Chunk):
            texts[event.model_name] += event.text
    assert texts == ANSWERS
    assert {name: str(response) for name, response in results.initial_responses.items()} == ANSWERS
    assert isinstance(events[-1], RunCompleted)


@on_asyncio
async def test_cancelling_a_task_closes_the_connection_of_each_client() -> None:
    for name in ANSWERS:
        async with provider() as served, three_clients(served.url) as orchestrator:
            served.hangs = True
            call = asyncio.create_task(orchestrator.get_model_response(name, "What is it?"))
            await served.asked.wait()
            call.cancel()
            await asyncio.wait([call])
            await served.disconnected.wait()
            assert call.cancelled()


@on_asyncio
async def test_leaving_a_stream_closes_the_connections() -> None:
    async with provider() as served, three_clients(served.url) as orchestrator:
        served.hangs = True
        async with orchestrator.stream_responses("What is it?", models=["openai"]):
            await served.asked.wait()
        await served.disconnected.wait()


@on_asyncio
async def test_a_timeout_of_the_run_closes_the_connections() -> None:
    async with provider() as served, three_clients(served.url) as orchestrator:
        served.hangs = True
        call = orchestrator.get_model_response("aiohttp", "What is it?", timeout=0.3)
        assert isinstance(await _error_of(call), TimeoutError)
        await served.disconnected.wait()


@on_asyncio
async def test_errors_of_each_library_are_told_apart_alike() -> None:
    async with provider() as served, three_clients(served.url) as orchestrator:
        for status, kind, retryable in (
            (401, "auth", False),
            (429, "rate_limit", True),
            (503, "overloaded", True),
        ):
            served.status = status
            for name in ANSWERS:
                failed = await _error_of(orchestrator.get_model_response(name, f"{status}?"))
                assert isinstance(failed, AllAttemptsFailed)
                error = failed.__cause__
                assert isinstance(error, ModelError)
                assert (error.status, error.kind, error.retryable) == (status, kind, retryable)
        assert {health.status for health in orchestrator.health().values()} == {"degraded"}


async def _error_of(call: Any) -> BaseException | None:
    try:
        await call
    except Exception as error:  # noqa: BLE001 - the tests look at it
        return error
    return None
