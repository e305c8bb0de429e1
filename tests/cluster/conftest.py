"""A Ray cluster of this machine, for the tests that are marked `ray`; all of them share it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from helpers.thread_clients import Events

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.fake_ray import FakeRay

# Ray reads these when it is imported. Under `uv run` it would make an environment for each worker otherwise.
RAY_SETTINGS = {
    "RAY_AUTH_MODE": "disabled",  # or a token would have to be handed on
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # the workers use this environment, as it is
    "RAY_USAGE_STATS_ENABLED": "0",
}
os.environ |= RAY_SETTINGS


@pytest.fixture
def ray_settings() -> dict[str, str]:
    """What a program that a test starts must have in its environment to join the cluster."""
    return RAY_SETTINGS


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """No cluster: each process is a thread of this one."""
    from helpers.fake_ray import FakeRay  # noqa: PLC0415 - needs the extra

    return FakeRay(monkeypatch)


@pytest.fixture(autouse=True)
def no_events() -> None:
    Events.known.clear()


HEAD = """
import sys, ray
node = ray.init(num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False, logging_level="error")
print(node.address_info["address"], flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """A cluster that another process has started: Ray does not wait for the end of the programs it starts.

    The program is connected to it; the value is its address.
    """
    ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    from helpers import placed_clients  # noqa: PLC0415 - of these tests alone

    ray.cloudpickle.register_pickle_by_value(placed_clients)  # workers cannot import it
    for _ in range(3):  # Ray gives itself 30 seconds, which a busy machine may exceed
        with subprocess.Popen(
            [sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as head:
            assert head.stdin is not None
            assert head.stdout is not None
            address = head.stdout.readline().strip()
            if address:
                ray.init(address=address, log_to_driver=False)
                yield address
                ray.shutdown()
                head.stdin.close()
                return
    pytest.fail("Ray does not start")
