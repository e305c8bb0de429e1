"""What Ultra's clients get from the simulated provider, in every protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helpers.provider_calls import KEY, PROTOCOLS, ask, fail
from ultra.faults.provider import Failure, Reply, SimulatedProvider, simulated_provider
from ultra.messages.results import Usage

if TYPE_CHECKING:
    from ultra.errors import ErrorKind
    from ultra.faults.provider import FailureKind

every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
streamed_or_not = pytest.mark.parametrize("stream", [False, True])


@every_protocol
async def test_a_stream_gives_what_a_plain_answer_gives(provider: SimulatedProvider, protocol: str) -> None:
    plain = await ask(provider, protocol, "What is the capital of France?", system="Be brief.")
    streamed = await ask(
        provider, protocol, "What is the capital of France?", system="Be brief.", stream=True
    )

    assert len(plain.content) > 10
    assert (streamed.content, streamed.usage) == (plain.content, plain.usage)
    assert (streamed.finish_reason, streamed.model) == (plain.finish_reason, plain.model) == ("stop", "any")


async def test_all_protocols_give_the_same_answer_and_count_it_alike(provider: SimulatedProvider) -> None:
    answers = [await ask(provider, protocol, "Why?", system="Be brief.") for protocol in PROTOCOLS]

    assert len({answer.content for answer in answers}) == 1
    assert len({(answer.usage.input, answer.usage.output) for answer in answers if answer.usage}) == 1


@every_protocol
async def test_the_provider_reads_what_the_client_asks(provider: SimulatedProvider, protocol: str) -> None:
    await ask(provider, protocol, "Why?", system="Be brief.", max_tokens=7, stop=("END", "FIN"), stream=True)

    question = provider.requests[-1].question
    assert question is not None
    assert (question.model, question.system, question.prompt) == ("any", "Be brief.", "Why?")
    stop = () if protocol == "openai_responses" else ("END", "FIN")  # it has none
    assert (question.max_tokens, question.stop, question.stream) == (7, stop, True)
    assert [message.role for message in question.messages] == ["user"]


@every_protocol
@streamed_or_not
async def test_an_answer_ends_at_the_limit_of_tokens(
    provider: SimulatedProvider, protocol: str, *, stream: bool
) -> None:
    provider.script("one two three four five")

    completion = await ask(provider, protocol, max_tokens=3, stream=stream)

    assert (completion.content, completion.finish_reason) == ("one two three", "length")
    assert completion.usage is not None
    assert completion.usage.output == 3


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "openai_responses"])
@streamed_or_not
async def test_an_answer_ends_at_a_stop_sequence(
    provider: SimulatedProvider, protocol: str, *, stream: bool
) -> None:
    provider.script("one two three four five")

    completion = await ask(provider, protocol, stop="three", stream=stream)

    assert (completion.content, completion.finish_reason) == ("one two ", "stop")


@every_protocol
@streamed_or_not
async def test_reasoning_comes_beside_the_text(
    provider: SimulatedProvider, protocol: str, *, stream: bool
) -> None:
    provider.script(Reply("It is 4.", reasoning="two and two"))

    completion = await ask(provider, protocol, stream=stream)

    assert (completion.content, completion.reasoning) == ("It is 4.", "two and two")
    assert completion.usage is not None
    assert completion.usage.output == 7


@streamed_or_not
async def test_the_usage_tells_of_the_cache_and_of_reasoning_where_the_protocol_can(
    provider: SimulatedProvider, *, stream: bool
) -> None:
    prompt = " ".join(["word"] * 17)
    provider.script(*[Reply("It is 4.", reasoning="two and two", cached=12) for _ in PROTOCOLS])

    usages = {
        protocol: (await ask(provider, protocol, prompt, stream=stream)).usage for protocol in PROTOCOLS
    }

    assert usages == {
        "openai": Usage(input=20, output=7, cached=12, reasoning=3),
        "openai_responses": Usage(input=20, output=7, cached=12, reasoning=3),
        "anthropic": Usage(input=20, output=7, cached=12, written=0, reasoning=3),
        "gemini": Usage(input=20, output=7, cached=12, reasoning=3),
        "ollama": Usage(input=20, output=7),
    }


@every_protocol
@streamed_or_not
async def test_a_refusal_looks_as_the_protocol_has_it(
    provider: SimulatedProvider, protocol: str, *, stream: bool
) -> None:
    provider.script(Reply("I cannot help with that.", finish="refusal"))

    completion = await ask(provider, protocol, stream=stream)

    told = (completion.content, completion.refusal, completion.finish_reason)
    assert (
        told
        == {
            "openai": ("", "I cannot help with that.", "refusal"),
            "openai_responses": ("", "I cannot help with that.", "refusal"),
            "anthropic": ("", "I cannot help with that.", "refusal"),
            "gemini": ("", "I cannot help with that.", "content_filter"),
            "ollama": ("I cannot help with that.", None, "stop"),
        }[protocol]
    )


@every_protocol
@streamed_or_not
async def test_a_filtered_answer_keeps_what_came_through(
    provider: SimulatedProvider, protocol: str, *, stream: bool
) -> None:
    provider.script(Reply("It begins well", finish="content_filter"))

    completion = await ask(provider, protocol, stream=stream)

    assert completion.content == "It begins well"
    assert completion.finish_reason == {
        "openai": "content_filter",
        "openai_responses": "content_filter",
        "anthropic": "refusal",
        "gemini": "content_filter",
        "ollama": "stop",
    }.get(protocol)


@every_protocol
@streamed_or_not
async def test_an_answer_may_be_empty(provider: SimulatedProvider, protocol: str, *, stream: bool) -> None:
    provider.script("")

    completion = await ask(provider, protocol, stream=stream)

    assert (completion.content, completion.finish_reason) == ("", "stop")


@every_protocol
@streamed_or_not
async def test_text_arrives_as_it_is(provider: SimulatedProvider, protocol: str, *, stream: bool) -> None:
    text = 'Grüße: "x"\r\n\tdata: [DONE]\n\nevent: error\u2028\u0085 漢字 🎉 \\u0041'
    provider.script(text)

    assert (await ask(provider, protocol, stream=stream)).content == text


# --- errors --------------------------------------------------------------------------------------


@every_protocol
@streamed_or_not
async def test_a_failure_is_known_for_what_it_is(
    provider: SimulatedProvider, protocol: str, *, stream: bool
) -> None:
    meant: dict[FailureKind, ErrorKind] = {
        "bad_request": "bad_request",
        "auth": "auth",
        "permission": "auth",
        "not_found": "bad_request",
        "too_large": "bad_request",
        "rate_limit": "rate_limit",
        "timeout": "timeout",
        "server": "server",
        "overloaded": "overloaded",
    }
    provider.script(*map(Failure, meant))

    raised = {kind: (await fail(provider, protocol, stream=stream))[0] for kind in meant}

    assert {kind: error.kind for kind, error in raised.items()} == meant
    assert {error.provider for error in raised.values()} == {protocol}
    retryable = [kind for kind, error in raised.items() if error.retryable]
    assert retryable == ["rate_limit", "timeout", "server", "overloaded"]
    assert [request.status for request in provider.requests] == [error.status for error in raised.values()]
    assert {request.outcome for request in provider.requests} == {"failed"}


async def test_an_exhausted_quota_is_told_in_words_that_only_some_protocols_have(
    provider: SimulatedProvider,
) -> None:
    provider.script(*[Failure("quota") for _ in PROTOCOLS])

    errors = {protocol: (await fail(provider, protocol))[0] for protocol in PROTOCOLS}

    assert {name: error.status for name, error in errors.items()} == {
        "openai": 429,
        "openai_responses": 429,
        "anthropic": 400,
        "gemini": 429,
        "ollama": 402,
    }
    assert (errors["openai"].kind, errors["ollama"].kind) == ("quota", "quota")
    assert errors["gemini"].kind == "rate_limit"  # Gemini has one status and one word for both


@every_protocol
async def test_the_words_and_the_status_of_a_failure_may_be_the_tests_own(
    provider: SimulatedProvider, protocol: str
) -> None:
    provider.script(Failure(status=507, message="The disk is full."))

    error, _ = await fail(provider, protocol)

    assert (error.message, error.status, error.kind) == ("The disk is full.", 507, "server")


@every_protocol
async def test_a_failure_tells_when_to_retry(provider: SimulatedProvider, protocol: str) -> None:
    provider.script(Failure("rate_limit", retry_after=1.5))

    error, _ = await fail(provider, protocol)

    assert error.retry_after == 1.5


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
@streamed_or_not
async def test_answers_and_failures_have_request_ids_of_their_own(
    provider: SimulatedProvider, protocol: str, *, stream: bool
) -> None:
    provider.script("Yes.", Failure("server"), Reply("Hel", failure=Failure("server")))

    ids = [(await ask(provider, protocol, stream=stream)).request_id]
    ids += [(await fail(provider, protocol, stream=stream))[0].request_id for _ in range(2)]

    assert len(set(ids)) == 3
    assert all(each is not None and each.startswith("req_") for each in ids)


async def test_the_ids_are_the_same_for_the_same_seed() -> None:
    ids = []
    for seed in (1, 1, 2):
        async with simulated_provider(seed=seed) as provider:
            ids.append((await ask(provider, "openai")).request_id)

    assert ids[0] == ids[1] != ids[2]


@every_protocol
async def test_an_error_inside_a_stream_comes_after_the_text_before_it(
    provider: SimulatedProvider, protocol: str
) -> None:
    provider.script(Reply("Hel", failure=Failure("overloaded", message="Overloaded just now.")))

    error, text = await fail(provider, protocol, stream=True)

    assert (text, error.message, error.status) == ("Hel", "Overloaded just now.", 200)
    assert error.retryable
    assert provider.requests[-1].outcome == "failed"


@every_protocol
async def test_an_error_may_be_all_that_a_stream_has(provider: SimulatedProvider, protocol: str) -> None:
    provider.script(Reply("", failure=Failure("overloaded", message="Overloaded just now.")))

    error, text = await fail(provider, protocol, stream=True)

    assert (text, error.message, error.status) == ("", "Overloaded just now.", 200)


@every_protocol
async def test_what_would_fail_inside_a_stream_fails_a_plain_request_altogether(
    provider: SimulatedProvider, protocol: str
) -> None:
    provider.script(Reply("Hel", failure=Failure("overloaded")))

    error, _ = await fail(provider, protocol)

    assert error.kind == "overloaded"
    assert error.status in {503, 529}


@every_protocol
@streamed_or_not
async def test_a_wrong_key_is_refused(protocol: str, *, stream: bool) -> None:
    async with simulated_provider(api_key="the-right-key") as provider:
        error, _ = await fail(provider, protocol, stream=stream)
        completion = await ask(provider, protocol, key="the-right-key", stream=stream)

    assert error.kind == "auth"
    assert KEY not in str(error)
    assert completion.finish_reason == "stop"


@every_protocol
async def test_only_ollama_takes_a_request_without_a_key(provider: SimulatedProvider, protocol: str) -> None:
    if protocol == "ollama":
        assert (await ask(provider, protocol, key=None)).finish_reason == "stop"
    else:
        error, _ = await fail(provider, protocol, key=None)
        assert error.kind == "auth"
    assert not provider.requests[-1].has_key


@every_protocol
async def test_a_model_that_there_is_not_is_not_found(protocol: str) -> None:
    async with simulated_provider(models=["known"]) as provider:
        error, _ = await fail(provider, protocol, model="unknown")
        completion = await ask(provider, protocol, model="known")

    assert (error.status, error.kind) == (404, "bad_request")
    assert "'unknown' does not exist" in error.message
    assert completion.model == "known"
