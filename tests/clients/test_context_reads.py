from __future__ import annotations

from contextvars import ContextVar
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from ultra.clients import connect
from ultra.clients.adapter import ClientAdapter
from ultra.testing import FakeModel

TENANT: ContextVar[str] = ContextVar("tenant")
USER: ContextVar[str] = ContextVar("user")
STATE = SimpleNamespace(tenant=TENANT)


def _who() -> str:
    return TENANT.get()


async def direct(prompt: str) -> str:
    return TENANT.get()


async def by_a_helper(prompt: str) -> str:
    return _who()


async def in_a_comprehension(prompt: str) -> str:
    return "".join(TENANT.get() for _ in prompt)


async def of_an_object(prompt: str) -> str:
    return str(STATE.tenant.get())


async def plain(prompt: str) -> str:
    return prompt


async def given(variable: ContextVar[str], prompt: str) -> str:
    return variable.get()


def decorated(function: Any) -> Any:
    @wraps(function)
    async def wrapper(prompt: str) -> str:
        return str(await function(prompt))

    return wrapper


def closing_over(variable: ContextVar[str]) -> Any:
    async def client(prompt: str) -> str:
        return variable.get()

    return client


class Method:
    async def generate(self, prompt: str) -> str:
        return self._who()

    def _who(self) -> str:
        return TENANT.get()


class Holder:
    def __init__(self) -> None:
        self.variable = TENANT

    async def generate(self, prompt: str) -> str:
        return self.variable.get()


@pytest.mark.parametrize(
    "client",
    [
        direct,
        by_a_helper,
        in_a_comprehension,
        of_an_object,
        partial(given, TENANT),
        pytest.param(decorated(direct), id="decorated"),
        closing_over(TENANT),
        Method(),
        Method().generate,
        Holder(),
        SimpleNamespace(generate=direct),
    ],
)
def test_the_variables_to_which_a_client_s_code_refers_are_found(client: object) -> None:
    assert ClientAdapter(client).reads_context == (TENANT,)


@pytest.mark.parametrize("client", [plain, AsyncMock(), FakeModel(), connect("openai:m", api_key="k")])
def test_most_clients_read_none(client: object) -> None:
    assert ClientAdapter(client).reads_context is False


@pytest.mark.parametrize(
    ("declared", "read"),
    [(True, True), (False, False), ((USER,), (USER,)), ([USER, TENANT], (USER, TENANT)), (USER, (USER,))],
)
def test_what_a_client_declares_counts(declared: Any, read: object) -> None:
    client = Method()
    client.reads_context = declared  # type: ignore[attr-defined]
    assert ClientAdapter(client).reads_context == read


@pytest.mark.parametrize("declared", ["tenant", (), (TENANT, "user"), object(), None])
def test_a_declaration_that_is_none_is_as_if_it_were_not_there(declared: Any) -> None:
    client = Method()
    client.reads_context = declared  # type: ignore[attr-defined]
    assert ClientAdapter(client).reads_context == (TENANT,)
