"""Who may get whose answer: identities of clients, scopes of callers."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ultra import MultiLLMOrchestrator
from ultra.clients import connect
from ultra.errors import BadCall
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

TENANT: ContextVar[Any] = ContextVar("tenant", default="nobody")


def served(text: str, **options: Any) -> Any:
    reply = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    options.setdefault("base_url", "https://one.example/v1")
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=reply))
    return connect("openai:gpt-x", api_key="k", transport=transport, **options)


async def asked(store: str, client: object) -> tuple[str, bool]:
    async with MultiLLMOrchestrator(cache=store) as orchestrator:
        orchestrator.register_model("m", client)
        response = await orchestrator.get_model_response("m", "Q")
        return response.content, response.cached


@pytest.mark.parametrize(
    "other",
    [
        {"base_url": "https://two.example/v1"},
        {"system": "You are a pirate."},
        {"temperature": 0.5},
        {"max_tokens": 7},
        {"reasoning_effort": "high"},
        {"extra_body": {"safe": False}},
        {"extra_headers": {"x-variant": "b"}},
        {"output": "tool"},
        {"quirks": {"no_system": True}},
    ],
)
async def test_a_store_that_outlives_the_program_tells_clients_apart_by_all_that_is_their_own(
    other: dict[str, Any], tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/answers.db"
    assert await asked(store, served("one")) == ("one", False)
    assert await asked(store, served("another", **other)) == ("another", False)
    assert await asked(store, served("again")) == ("one", True)


async def test_each_deployment_counts(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/answers.db"
    staging = {"base_url": "https://staging.example/v1"}
    assert await asked(store, [served("one"), served("x")]) == ("one", False)
    assert await asked(store, [served("two"), served("x", **staging)]) == ("two", False)
    assert await asked(store, [served("three", **staging), served("x")]) == ("three", False)
    assert await asked(store, [served("four"), served("x")]) == ("one", True)


async def test_a_key_is_no_part_of_what_tells_a_client_apart() -> None:
    one = served("one", extra_headers={"Authorization": "Bearer one"})
    two = served("one", extra_headers={"authorization": "Bearer two"})
    assert one.cache_identity == two.cache_identity
    assert "one.example" not in one.cache_identity


async def test_a_client_of_another_kind_may_have_an_identity(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/answers.db"
    for identity, cached in (("a", False), ("b", False), ("a", True), (None, False), (None, True)):
        client = FakeModel()
        client.cache_identity = identity  # type: ignore[attr-defined]
        assert (await asked(store, client))[1] is cached


# --- scopes ------------------------------------------------------------------------------------


async def test_only_calls_and_runs_of_one_scope_share_an_answer() -> None:
    fake = FakeModel()
    async with MultiLLMOrchestrator(stages=["initial"]) as orchestrator:
        orchestrator.register_model("m", fake)
        for scope, cached in (
            (None, False),
            ("a", False),
            ("", False),
            ("b", False),
            ("a", True),
            (None, True),
        ):
            assert (await orchestrator.get_model_response("m", "Q", scope=scope)).cached is cached
            run = await orchestrator.process_responses("R", scope=scope)
            assert run.initial_responses["m"].cached is cached


async def test_only_requests_of_one_scope_share_a_call_under_way() -> None:
    fake = FakeModel(gated=True)
    async with MultiLLMOrchestrator() as orchestrator, trio.open_nursery() as nursery:
        orchestrator.register_model("m", fake)
        for scope in ("a", "b", "a", None, None):
            nursery.start_soon(lambda s: orchestrator.get_model_response("m", "Q", scope=s), scope)
        await trio.testing.wait_all_tasks_blocked()
        assert len(fake.calls) == 3
        fake.gate.set()


@pytest.mark.parametrize("scope", [7, b"a", ("a",)])
async def test_a_scope_that_is_no_text_is_a_bad_call(scope: Any) -> None:
    async with MultiLLMOrchestrator() as orchestrator:
        orchestrator.register_model("m", FakeModel())
        with pytest.raises(BadCall, match="scope"):
            await orchestrator.get_model_response("m", "Q", scope=scope)
        with pytest.raises(BadCall, match="scope"):
            await orchestrator.process_responses("Q", scope=scope)


async def of_tenant(prompt: str) -> str:
    await trio.lowlevel.checkpoint()
    return f"records of {TENANT.get()}"


async def test_a_client_that_reads_the_tenant_gives_each_tenant_its_own() -> None:
    found: dict[str, str] = {}

    async def ask(who: str, number: int) -> None:
        TENANT.set(who)
        response = await orchestrator.get_model_response("m", "Q")
        found[f"{who} {number}"] = response.content
        if number:
            assert response.cached

    async with MultiLLMOrchestrator() as orchestrator:
        orchestrator.register_model("m", of_tenant)
        for number in range(2):
            async with trio.open_nursery() as nursery:
                for who in ("alice", "bob"):
                    nursery.start_soon(ask, who, number)
    assert all(text == f"records of {name.split()[0]}" for name, text in found.items())
    assert len(found) == 4


async def test_a_client_that_reads_what_nobody_knows_shares_within_a_scope_alone() -> None:
    fake = FakeModel()
    fake.reads_context = True  # type: ignore[attr-defined]
    async with MultiLLMOrchestrator() as orchestrator:
        orchestrator.register_model("m", fake)
        for scope, cached in ((None, False), (None, False), ("a", False), ("a", True), ("b", False)):
            assert (await orchestrator.get_model_response("m", "Q", scope=scope)).cached is cached


async def test_a_value_that_is_no_text_or_number_is_shared_within_a_scope_alone() -> None:
    TENANT.set(object())
    async with MultiLLMOrchestrator() as orchestrator:
        orchestrator.register_model("m", of_tenant)
        for scope, cached in ((None, False), (None, False), ("a", False), ("a", True)):
            assert (await orchestrator.get_model_response("m", "Q", scope=scope)).cached is cached


async def test_each_model_has_a_shard_of_its_own() -> None:
    calls: list[str] = []

    def answering(name: str) -> Callable[[str], Awaitable[str]]:
        async def answer(prompt: str) -> str:
            calls.append(name)
            return f"{name}: {prompt}"

        return answer

    names = ("a", "b")
    orchestrator = MultiLLMOrchestrator()
    for name in names:
        orchestrator.register_model(name, answering(name))
    async with orchestrator:
        for _ in range(2):
            answers = [await orchestrator.get_model_response(name, "Q") for name in names]
            assert [answer.content for answer in answers] == ["a: Q", "b: Q"]
        assert calls == ["a", "b"]
        await orchestrator.unregister_model("a")
        orchestrator.register_model("a", answering("another a"))
        assert (await orchestrator.get_model_response("b", "Q")).cached
        assert (await orchestrator.get_model_response("a", "Q")).content == "another a: Q"
    assert calls == ["a", "b", "another a"]
