"""What counts as a crash, and what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["CrashBarrier"]


class CrashBarrier:
    """A context manager that keeps the exception that leaves its block, if it is a crash, in `crash`.

    Cancellation, KeyboardInterrupt and the like are no crashes and pass through. A group that has both
    is split: the crash is kept, and the rest goes on.
    """

    __slots__ = ("crash",)

    def __init__(self) -> None:
        self.crash: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if isinstance(error, Exception):
            self.crash = error
            return True
        if isinstance(error, BaseExceptionGroup):
            self.crash, rest = error.split(Exception)
            if self.crash is not None and rest is not None:
                raise rest from None
        return False
