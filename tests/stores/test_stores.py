"""The names of the room."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ultra.stores


def test_importing_the_room_imports_no_store_and_no_library_of_one() -> None:
    code = (
        "import sys; import ultra.stores; "
        "print([name for name in ('sqlite3', 'coredis', 'trio', 'msgspec', 'ultra.stores.memory') "
        "if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ultra.stores.__all__)
def test_each_public_name_is_there(name: str) -> None:
    if name == "RedisCache":
        pytest.importorskip("coredis")
    assert getattr(ultra.stores, name).__name__ == name
    assert name in dir(ultra.stores)
