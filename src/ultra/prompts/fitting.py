"""Cuts texts so that together they fit a number of tokens, fairly and in the middle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra.messages.tokens import MAX_CHARACTERS_PER_TOKEN, estimate_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cut_middle", "fair_shares"]


def fair_shares(demands: Sequence[int], room: int) -> list[int]:
    """Divide `room` by max-min fairness: nobody's share can grow but by taking from a smaller one.

    Small demands are met in full, and the large ones share equally what is left (Bertsekas and
    Gallager, Data Networks, 2nd ed., section 6.5.2). Never gives more than `room` in all, nor more
    than was demanded; a negative `room` counts as none.
    """
    shares = [0] * len(demands)
    left = max(0, room)
    ascending = sorted(range(len(demands)), key=lambda index: demands[index])
    for position, index in enumerate(ascending):
        shares[index] = min(demands[index], left // (len(demands) - position))
        left -= shares[index]
    return shares


def cut_middle(text: str, tokens: int) -> str:
    """`text`, shortened to at most `tokens` by the estimate, with a marker where its middle was.

    Beginnings carry the claim and ends the conclusion, and language models use the middle of a long
    text least anyway (Liu et al., "Lost in the Middle", 2023). A text that fits comes back as it is;
    where not even the marker fits, nothing is left.
    """
    if estimate_tokens(text) <= tokens:
        return text
    # The most characters that fit, by bisection below what no text of so many tokens can exceed: a
    # long text costs no more time than a short one.
    kept, too_many = -1, min(len(text), max(0, tokens) * MAX_CHARACTERS_PER_TOKEN + 1)
    while too_many - kept > 1:
        middle = (kept + too_many) // 2
        if estimate_tokens(_keep(text, middle)) <= tokens:
            kept = middle
        else:
            too_many = middle
    return _keep(text, kept) if kept >= 0 else ""


def _keep(text: str, characters: int) -> str:
    """The first and the last half of `characters` of `text`, around the marker."""
    tail = characters // 2
    head = characters - tail
    return (
        f"{text[:head]}\n[... {len(text) - characters} characters left out ...]\n{text[len(text) - tail :]}"
    )
