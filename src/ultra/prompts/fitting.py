"""Shares of a number of tokens for several texts, and cutting a text to its share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra.messages.tokens import MAX_CHARACTERS_PER_TOKEN, estimate_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cut_middle", "fair_shares"]


def fair_shares(demands: Sequence[int], room: int) -> list[int]:
    """Return the shares of `room` for these demands, by max-min fairness.

    Small demands are met in full, and the large ones share what is left equally (Bertsekas and Gallager,
    Data Networks, 2nd ed., section 6.5.2). The shares together are at most `room`, and none is more than
    its demand. A negative `room` counts as 0. ::

        fair_shares([10, 100, 100], room=90) == [10, 40, 40]
    """
    shares = [0] * len(demands)
    left = max(0, room)
    ascending = sorted(range(len(demands)), key=lambda index: demands[index])
    for position, index in enumerate(ascending):
        shares[index] = min(demands[index], left // (len(demands) - position))
        left -= shares[index]
    return shares


def cut_middle(text: str, tokens: int) -> str:
    """Return `text` cut to at most so many `tokens`, by estimate, with a marker in place of its middle.

    The beginning of a text has its claim, the end its conclusion, and models use the middle of a long text
    least (Liu et al., "Lost in the Middle", 2023). A text that fits is returned as it is. If not even the
    marker fits, the result is empty.
    """
    if estimate_tokens(text) <= tokens:
        return text
    # Bisection, below the number of characters that no text of so many tokens exceeds: so a long text takes
    # no more time than a short one.
    kept, too_many = -1, min(len(text), max(0, tokens) * MAX_CHARACTERS_PER_TOKEN + 1)
    while too_many - kept > 1:
        middle = (kept + too_many) // 2
        if estimate_tokens(_keep(text, middle)) <= tokens:
            kept = middle
        else:
            too_many = middle
    return _keep(text, kept) if kept >= 0 else ""


def _keep(text: str, characters: int) -> str:
    """Return so many characters of `text`, half of them from each end, around the marker."""
    tail = characters // 2
    head = characters - tail
    return (
        f"{text[:head]}\n[... {len(text) - characters} characters left out ...]\n{text[len(text) - tail :]}"
    )
