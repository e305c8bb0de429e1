"""Which test comes after the one that runs, so that a test can begin what the next one waits for."""

from __future__ import annotations

import pytest

__all__ = ["NEXT_ITEM"]

NEXT_ITEM = pytest.StashKey[pytest.Item | None]()
"""In the stash of each test: the next one of this process."""
