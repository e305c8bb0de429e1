from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from helpers.provider_calls import ask
from ultra.faults.provider import SimulatedProvider, simulated_provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(scope="session", autouse=True)
def loaded() -> None:
    """The first call loads the HTTP library, in a thread that a jumping clock does not wait for."""

    async def call() -> None:
        async with simulated_provider() as running:
            await ask(running, "openai")

    trio.run(call)


@pytest.fixture
async def provider() -> AsyncIterator[SimulatedProvider]:
    async with simulated_provider() as running:
        yield running
