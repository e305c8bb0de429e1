from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ultra.faults.provider import SimulatedProvider, simulated_provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def provider() -> AsyncIterator[SimulatedProvider]:
    async with simulated_provider() as running:
        yield running
