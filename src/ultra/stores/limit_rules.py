"""The rules of shared limits, over any table of numbers: what is granted, and what is settled.

A store keeps the table and lets one process at a time change it. Redis has the same rules as a script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec
from msgspec import Struct

from ultra._support.randomness import new_id
from ultra.stores.contracts import GRANT_SECONDS, Decision, LimitState, Want

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["LimitRow", "LimitTable", "decode_wants", "encode_wants", "renew", "settle", "take"]

_MINUTE: Final = 60.0
_KEPT: Final = 2 * _MINUTE
"""Seconds after which a bucket is full again, whatever was taken, but for debts; then its row can go."""

_LEASE_RETRY: Final = 1.0
_ROUNDING: Final = 1e-9

encode_wants = msgspec.msgpack.Encoder().encode
decode_wants = msgspec.msgpack.Decoder(tuple[Want, ...]).decode


class LimitRow(Struct):
    """One limit. `level`: what is in the bucket, or spent of the budget; `held`: reserved, or leased.

    `at`: when `level` was right, for buckets; `until`: when the row can go. Both in seconds of Unix time.
    """

    level: float = 0.0
    held: float = 0.0
    at: float = 0.0
    until: float = 0.0


class LimitTable(Protocol):
    """The rows by the names of limits, and the grants."""

    def row(self, name: str) -> LimitRow | None:
        """Return the row of a limit."""
        ...

    def set_row(self, name: str, row: LimitRow) -> None:
        """Set the row of a limit."""
        ...

    def drop_rows(self, now: float) -> None:
        """Remove rows that can go: of which nothing is held, and whose time is over."""
        ...

    def add_grant(self, grant: str, wants: Sequence[Want], ends: float) -> None:
        """Add a grant."""
        ...

    def end_grant(self, grant: str) -> Iterable[Want] | None:
        """Remove a grant and return what it has taken; None: there is none."""
        ...

    def extend_grant(self, grant: str, ends: float) -> None:
        """Let a grant end at another time, if it is there."""
        ...

    def ended_grants(self, now: float) -> Iterable[str]:
        """Return the grants that are over."""
        ...


def take(table: LimitTable, wants: Sequence[Want], now: float) -> Decision:
    """Take all of `wants` or nothing; see `SharedLimits.take`."""
    for grant in tuple(table.ended_grants(now)):
        _end(table, grant, None, now)
    table.drop_rows(now)
    rows = [_refilled(table.row(want.name), want, now) for want in wants]
    for want, row in zip(wants, rows, strict=True):
        wait = _wait(want, row, now)
        if wait is not None:
            states = {each.name: _state(each, found, now) for each, found in zip(wants, rows, strict=True)}
            return Decision(refused=want.name, retry_after=wait, states=states)
    for want, row in zip(wants, rows, strict=True):
        if want.kind == "rate":
            row.level -= min(want.amount, want.most)
        else:
            row.held += want.amount
        table.set_row(want.name, row)
    grant = new_id()
    table.add_grant(grant, wants, now + GRANT_SECONDS)
    return Decision(
        grant=grant,
        states={want.name: _state(want, row, now) for want, row in zip(wants, rows, strict=True)},
    )


def settle(table: LimitTable, grant: str, used: Mapping[str, float], now: float) -> None:
    """End a grant; see `SharedLimits.settle`."""
    _end(table, grant, used, now)


def renew(table: LimitTable, grants: Sequence[str], now: float) -> None:
    """Let grants go on; see `SharedLimits.renew`."""
    for grant in grants:
        table.extend_grant(grant, now + GRANT_SECONDS)


def _end(table: LimitTable, grant: str, used: Mapping[str, float] | None, now: float) -> None:
    for want in table.end_grant(grant) or ():
        row = _refilled(table.row(want.name), want, now)
        real = want.amount if used is None else used.get(want.name, want.amount)
        if want.kind == "rate":
            row.level = min(want.most, row.level + min(want.amount, want.most) - real)
        else:
            left = row.held - want.amount
            row.held = left if left > _ROUNDING else 0.0
            if want.kind == "budget":
                row.level += real
        table.set_row(want.name, row)


def _refilled(row: LimitRow | None, want: Want, now: float) -> LimitRow:
    """Return a row as it is now. A clock that was set back gives nothing, and takes nothing."""
    if want.kind == "rate":
        if row is None:
            row = LimitRow(level=want.most, at=now)
        row.level = min(want.most, row.level + max(0.0, now - row.at) * want.most / _MINUTE)
        row.at = now
        row.until = now + _KEPT + max(0.0, -row.level) * _MINUTE / want.most
        return row
    if row is None:
        row = LimitRow(at=now)
    row.until = max(row.until, want.until, now + 2 * GRANT_SECONDS)
    return row


def _wait(want: Want, row: LimitRow, now: float) -> float | None:
    """Return the seconds until a limit may allow it; None: it does now."""
    match want.kind:
        case "rate":
            lacking = min(want.amount, want.most) - row.level
            return lacking * _MINUTE / want.most if lacking > _ROUNDING * want.most else None
        case "budget":
            return max(1.0, want.until - now) if row.level + row.held >= want.most else None
        case "lease":
            return _LEASE_RETRY if row.held + want.amount > want.most else None


def _state(want: Want, row: LimitRow, now: float) -> LimitState:
    match want.kind:
        case "rate":
            return LimitState(left=max(0.0, row.level), reset=(want.most - row.level) * _MINUTE / want.most)
        case "budget":
            left = max(0.0, want.most - row.level - row.held)
            return LimitState(left=left, reset=max(0.0, want.until - now))
        case "lease":
            return LimitState(left=max(0.0, want.most - row.held))
