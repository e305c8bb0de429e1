"""Children that a test forks off this process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["forked"]


def forked(work: Callable[[], int]) -> int:
    """Fork, and return the process id of the child, which calls ``work()`` and ends with the code it returns.

    It ends with 1 if that raises, and never returns to the test.
    """
    child = os.fork()
    if not child:
        code = 1
        try:
            code = work()
        finally:
            os._exit(code)
    return child
