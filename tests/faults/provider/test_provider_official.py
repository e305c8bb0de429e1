"""The official clients talk to the simulated provider and are satisfied, in threads and on asyncio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import anthropic
import ollama
import openai
import pytest
import trio
from google import genai
from google.genai import errors, types

from ultra.faults.plan import FaultPlan
from ultra.faults.provider import Failure, FailureKind, Reply, SimulatedProvider, simulated_provider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

KINDS: tuple[FailureKind, ...] = get_args(FailureKind)

MESSAGES: Any = [{"role": "user", "content": "Why?"}]


async def in_thread(function: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(function)


async def on_asyncio(function: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await function()

    return await in_thread(lambda: asyncio.run(main()))


# --- openai --------------------------------------------------------------------------------------


def openai_client(provider: SimulatedProvider, **settings: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=provider.base_url("openai"), api_key="k", **settings)


async def test_openai_reads_a_plain_answer(provider: SimulatedProvider) -> None:
    provider.script(Reply("It is 4.", cached=2))

    def ask() -> Any:
        with openai_client(provider) as client:
            return client.chat.completions.with_raw_response.create(model="any", messages=MESSAGES)

    raw = await in_thread(ask)
    completion = raw.parse()

    assert completion.choices[0].message.content == "It is 4."
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.prompt_tokens_details.cached_tokens == 2
    assert (completion.usage.completion_tokens, completion.model) == (4, "any")
    assert raw.headers["x-request-id"].startswith("req_")
    assert int(raw.headers["x-ratelimit-limit-requests"]) == 10_000


async def test_openai_reads_a_stream_with_its_usage(provider: SimulatedProvider) -> None:
    provider.script("It is 4.")

    async def ask() -> list[Any]:
        url = provider.base_url("openai")
        async with openai.AsyncOpenAI(base_url=url, api_key="k") as client:
            stream = await client.chat.completions.create(
                model="any", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            )
            return [chunk async for chunk in stream]

    chunks = await on_asyncio(ask)

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "It is 4."
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens == 4


async def test_openai_gathers_a_stream_and_gets_no_usage_unasked(provider: SimulatedProvider) -> None:
    provider.script("It is 4.")

    def ask() -> Any:
        with (
            openai_client(provider) as client,
            client.chat.completions.stream(model="any", messages=MESSAGES) as stream,
        ):
            return stream.get_final_completion()

    completion = await in_thread(ask)

    assert completion.choices[0].message.content == "It is 4."
    assert completion.usage is None


async def test_openai_lists_models() -> None:
    async with simulated_provider(models=["one", "two"]) as provider:

        def ask() -> tuple[list[str], str]:
            with openai_client(provider) as client:
                names = [model.id for model in client.models.list()]
                with pytest.raises(openai.NotFoundError):
                    client.models.retrieve("three")
                return names, client.models.retrieve("two").id

        assert await in_thread(ask) == (["one", "two"], "two")


async def test_openai_raises_the_error_that_is_meant(provider: SimulatedProvider) -> None:
    meant = {
        "bad_request": openai.BadRequestError,
        "auth": openai.AuthenticationError,
        "permission": openai.PermissionDeniedError,
        "not_found": openai.NotFoundError,
        "rate_limit": openai.RateLimitError,
        "quota": openai.RateLimitError,
        "server": openai.InternalServerError,
        "overloaded": openai.InternalServerError,
    }
    raised: dict[str, openai.APIStatusError] = {}

    def ask() -> None:
        with openai_client(provider, max_retries=0) as client:
            for kind in KINDS:
                provider.script(Failure(kind))
                with pytest.raises(openai.APIStatusError) as error:
                    client.chat.completions.create(model="any", messages=MESSAGES)
                raised[kind] = error.value

    await in_thread(ask)

    assert {kind: type(raised[kind]) for kind in meant} == meant
    assert all(error.request_id is not None for error in raised.values())
    assert [kind for kind, error in raised.items() if error.code == "insufficient_quota"] == ["quota"]


async def test_openai_retries_after_the_time_that_it_is_told(provider: SimulatedProvider) -> None:
    provider.script(Failure("rate_limit", retry_after=0.001), Failure("server", retry_after=0.001), "Yes.")

    def ask() -> Any:
        with openai_client(provider, max_retries=2) as client:
            return client.chat.completions.create(model="any", messages=MESSAGES)

    assert (await in_thread(ask)).choices[0].message.content == "Yes."
    retries = [request.headers["x-stainless-retry-count"] for request in provider.requests]
    assert retries == ["0", "1", "2"]


async def test_openai_raises_an_error_inside_a_stream(provider: SimulatedProvider) -> None:
    provider.script(Reply("Hel", failure=Failure("server", message="It broke.")))
    pieces: list[str | None] = []

    def ask() -> None:
        with openai_client(provider) as client:
            stream = client.chat.completions.create(model="any", messages=MESSAGES, stream=True)
            with pytest.raises(openai.APIError, match=r"It broke\."):
                pieces.extend(chunk.choices[0].delta.content for chunk in stream)

    await in_thread(ask)

    assert pieces == ["", "Hel"]


async def test_azures_client_names_its_deployment(provider: SimulatedProvider) -> None:
    def ask() -> Any:
        with openai.AzureOpenAI(
            azure_endpoint=provider.url, azure_deployment="mine", api_key="k", api_version="2024-10-21"
        ) as client:
            return client.chat.completions.create(model="mine", messages=MESSAGES)

    assert (await in_thread(ask)).model == "mine"
    assert provider.requests[-1].has_key


# --- anthropic -----------------------------------------------------------------------------------


def anthropic_client(provider: SimulatedProvider, **settings: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=provider.base_url("anthropic"), api_key="k", **settings)


async def test_anthropic_reads_a_plain_answer(provider: SimulatedProvider) -> None:
    provider.script(Reply("one two END three", reasoning="Let me count."))

    def ask() -> Any:
        with anthropic_client(provider) as client:
            return client.messages.create(
                model="any", max_tokens=50, messages=MESSAGES, system="Be brief.", stop_sequences=["END"]
            )

    message = await in_thread(ask)

    assert [block.type for block in message.content] == ["thinking", "text"]
    assert (message.content[0].thinking, message.content[1].text) == ("Let me count.", "one two ")
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")
    assert message.usage.output_tokens == 7
    assert message._request_id.startswith("req_")


async def test_anthropic_gathers_a_stream(provider: SimulatedProvider) -> None:
    provider.script(Reply("It is 4.", reasoning="Let me count.", cached=3))
    pieces: list[str] = []

    async def ask() -> Any:
        url = provider.base_url("anthropic")
        async with (
            anthropic.AsyncAnthropic(base_url=url, api_key="k") as client,
            client.messages.stream(model="any", max_tokens=50, messages=MESSAGES) as stream,
        ):
            async for text in stream.text_stream:
                pieces.append(text)  # noqa: PERF401 - extend knows no asynchronous loop
            return await stream.get_final_message()

    message = await on_asyncio(ask)

    assert "".join(pieces) == "It is 4."
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 8)
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (2, 3)


async def test_anthropic_lists_models_and_counts_tokens() -> None:
    async with simulated_provider(models=["one", "two"]) as provider:

        def ask() -> tuple[list[str], str, int]:
            with anthropic_client(provider) as client:
                counted = client.messages.count_tokens(model="one", messages=MESSAGES)
                names = [model.id for model in client.models.list()]
                return names, client.models.retrieve("two").display_name, counted.input_tokens

        assert await in_thread(ask) == (["one", "two"], "two", 5)


async def test_anthropic_raises_the_error_that_is_meant(provider: SimulatedProvider) -> None:
    meant = {
        "bad_request": anthropic.BadRequestError,
        "auth": anthropic.AuthenticationError,
        "permission": anthropic.PermissionDeniedError,
        "not_found": anthropic.NotFoundError,
        "rate_limit": anthropic.RateLimitError,
        "server": anthropic.InternalServerError,
    }
    raised: dict[str, anthropic.APIStatusError] = {}

    def ask() -> None:
        with anthropic_client(provider, max_retries=0) as client:
            for kind in KINDS:
                provider.script(Failure(kind))
                with pytest.raises(anthropic.APIStatusError) as error:
                    client.messages.create(model="any", max_tokens=50, messages=MESSAGES)
                raised[kind] = error.value

    await in_thread(ask)

    assert {kind: type(raised[kind]) for kind in meant} == meant
    assert all(error.request_id is not None for error in raised.values())
    assert (raised["too_large"].status_code, raised["overloaded"].status_code) == (413, 529)


async def test_anthropic_retries_what_it_is_told_to_retry(provider: SimulatedProvider) -> None:
    provider.script(Failure("overloaded", retry_after=0.001), "Yes.", Failure("bad_request"))

    def ask() -> Any:
        with anthropic_client(provider) as client:
            message = client.messages.create(model="any", max_tokens=50, messages=MESSAGES)
            with pytest.raises(anthropic.BadRequestError):
                client.messages.create(model="any", max_tokens=50, messages=MESSAGES)
            return message

    assert (await in_thread(ask)).content[0].text == "Yes."
    assert [request.status for request in provider.requests] == [529, 200, 400]


async def test_anthropic_raises_an_error_inside_a_stream(provider: SimulatedProvider) -> None:
    provider.script(Reply("Hel", failure=Failure("overloaded")))
    pieces: list[str] = []

    def ask() -> None:
        with (
            anthropic_client(provider) as client,
            pytest.raises(anthropic.APIStatusError, match="Overloaded"),
            client.messages.stream(model="any", max_tokens=50, messages=MESSAGES) as stream,
        ):
            pieces.extend(stream.text_stream)

    await in_thread(ask)

    assert pieces == ["Hel"]


# --- google-genai --------------------------------------------------------------------------------


def gemini_client(provider: SimulatedProvider, version: str | None = None) -> genai.Client:
    options = types.HttpOptions(base_url=provider.base_url("gemini"), api_version=version)
    return genai.Client(api_key="k", http_options=options)


@pytest.mark.parametrize("version", [None, "v1", "v1beta"])
async def test_gemini_reads_a_plain_answer(provider: SimulatedProvider, version: str | None) -> None:
    provider.script(Reply("It is 4.", reasoning="Let me count.", cached=2))

    def ask() -> Any:
        with gemini_client(provider, version) as client:
            return client.models.generate_content(
                model="any",
                contents="Why?",
                config=types.GenerateContentConfig(max_output_tokens=50, system_instruction="Be brief."),
            )

    response = await in_thread(ask)

    assert response.text == "It is 4."
    assert response.candidates[0].finish_reason == types.FinishReason.STOP
    usage = response.usage_metadata
    assert (usage.candidates_token_count, usage.thoughts_token_count) == (4, 4)
    assert usage.cached_content_token_count == 2
    assert (response.model_version, provider.requests[-1].protocol) == ("any", "gemini")
    question = provider.requests[-1].question
    assert question is not None
    assert (question.system, question.max_tokens) == ("Be brief.", 50)


# google-genai derives a class from aiohttp's session, which aiohttp advises against.
@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
async def test_gemini_reads_a_stream(provider: SimulatedProvider) -> None:
    provider.script("It is 4.")

    async def ask() -> list[Any]:
        with gemini_client(provider) as client:
            async with client.aio as asynchronous:
                stream = await asynchronous.models.generate_content_stream(model="any", contents="Why?")
                return [chunk async for chunk in stream]

    chunks = await on_asyncio(ask)

    assert [chunk.text for chunk in chunks] == ["It", " is", " 4", "."]
    assert chunks[-1].usage_metadata.candidates_token_count == 4


async def test_gemini_lists_models_and_counts_tokens() -> None:
    async with simulated_provider(models=["one", "two"]) as provider:

        def ask() -> tuple[list[str | None], str | None, int | None]:
            with gemini_client(provider) as client:
                names = [model.name for model in client.models.list()]
                counted = client.models.count_tokens(model="one", contents="Why?")
                return names, client.models.get(model="two").display_name, counted.total_tokens

        assert await in_thread(ask) == (["models/one", "models/two"], "two", 5)


@pytest.mark.parametrize("stream", [False, True])
async def test_gemini_raises_the_error_that_is_meant(provider: SimulatedProvider, *, stream: bool) -> None:
    meant = {
        "auth": (400, "INVALID_ARGUMENT"),
        "permission": (403, "PERMISSION_DENIED"),
        "not_found": (404, "NOT_FOUND"),
        "rate_limit": (429, "RESOURCE_EXHAUSTED"),
        "overloaded": (503, "UNAVAILABLE"),
    }
    raised: dict[str, errors.APIError] = {}

    def ask() -> None:
        with gemini_client(provider) as client:
            generate: Any = client.models.generate_content
            if stream:
                generate = client.models.generate_content_stream
            for kind in KINDS:
                provider.script(Failure(kind, retry_after=48.0))
                with pytest.raises(errors.APIError) as error:
                    list(generate(model="any", contents="Why?"))
                raised[kind] = error.value

    await in_thread(ask)

    assert {kind: (raised[kind].code, raised[kind].status) for kind in meant} == meant
    assert all("'retryDelay': '48s'" in str(error.details) for error in raised.values())


async def test_gemini_raises_an_error_inside_a_stream(provider: SimulatedProvider) -> None:
    provider.script(Reply("Hel", failure=Failure("overloaded")))
    pieces: list[str | None] = []

    def ask() -> None:
        with gemini_client(provider) as client:
            stream = client.models.generate_content_stream(model="any", contents="Why?")
            with pytest.raises(errors.ServerError, match="overloaded"):
                pieces.extend(chunk.text for chunk in stream)

    await in_thread(ask)

    assert pieces == ["Hel"]


async def test_gemini_sees_a_blocked_prompt(provider: SimulatedProvider) -> None:
    provider.script(Reply("Not that.", finish="refusal"))

    def ask() -> Any:
        with gemini_client(provider) as client:
            return client.models.generate_content(model="any", contents="Why?")

    response = await in_thread(ask)

    assert response.prompt_feedback.block_reason == types.BlockedReason.SAFETY
    assert response.text is None


# --- ollama --------------------------------------------------------------------------------------


async def test_ollama_reads_a_plain_answer(provider: SimulatedProvider) -> None:
    provider.script(Reply("It is 4.", reasoning="Let me count."))

    def ask() -> Any:
        with ollama.Client(host=provider.base_url("ollama")) as client:
            return client.chat("any", messages=MESSAGES, options={"num_predict": 50, "stop": ["END"]})

    response = await in_thread(ask)

    assert (response.message.content, response.message.thinking) == ("It is 4.", "Let me count.")
    assert (response.done, response.done_reason) == (True, "stop")
    assert (response.prompt_eval_count, response.eval_count) == (5, 8)


async def test_ollama_reads_a_stream(provider: SimulatedProvider) -> None:
    provider.script("It is 4.")

    async def ask() -> list[Any]:
        async with ollama.AsyncClient(host=provider.base_url("ollama")) as client:
            return [part async for part in await client.chat("any", messages=MESSAGES, stream=True)]

    parts = await on_asyncio(ask)

    assert "".join(part.message.content for part in parts) == "It is 4."
    assert [part.done for part in parts] == [False] * 4 + [True]
    assert parts[-1].eval_count == 4


async def test_ollama_lists_and_shows_models() -> None:
    async with simulated_provider(models=["one", "two"]) as provider:

        def ask() -> tuple[list[str | None], list[str] | None]:
            with ollama.Client(host=provider.base_url("ollama")) as client:
                with pytest.raises(ollama.ResponseError, match="'three' does not exist"):
                    client.show("three")
                return [model.model for model in client.list().models], client.show("two").capabilities

        assert await in_thread(ask) == (["one", "two"], ["completion"])


@pytest.mark.parametrize("stream", [False, True])
async def test_ollama_raises_the_error_that_is_meant(provider: SimulatedProvider, *, stream: bool) -> None:
    provider.script(Failure("not_found", message="model 'any' not found"))

    def ask() -> ollama.ResponseError:
        with (
            ollama.Client(host=provider.base_url("ollama")) as client,
            pytest.raises(ollama.ResponseError) as raised,
        ):
            list(client.chat("any", messages=MESSAGES, stream=stream))
        return raised.value

    error = await in_thread(ask)

    assert (error.status_code, error.error) == (404, "model 'any' not found")


async def test_ollama_raises_an_error_inside_a_stream(provider: SimulatedProvider) -> None:
    provider.script(Reply("Hel", failure=Failure("server")))
    pieces: list[str | None] = []

    def ask() -> None:
        with ollama.Client(host=provider.base_url("ollama")) as client:
            stream = client.chat("any", messages=MESSAGES, stream=True)
            with pytest.raises(ollama.ResponseError, match="while running the model"):
                pieces.extend(part.message.content for part in stream)

    await in_thread(ask)

    assert pieces == ["Hel"]


# --- faults --------------------------------------------------------------------------------------


async def test_openais_retries_get_over_the_faults_of_a_plan() -> None:
    plan = FaultPlan(seed=1).http_status(status=503, retry_after=0.001, times=2)
    async with simulated_provider(faults=plan) as provider:
        provider.script("Yes.")

        def ask() -> Any:
            with openai_client(provider) as client:
                return client.chat.completions.create(model="any", messages=MESSAGES)

        assert (await in_thread(ask)).choices[0].message.content == "Yes."
    assert [request.status for request in provider.requests] == [503, 503, 200]
