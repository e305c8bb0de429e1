"""Which items of several lists are the same item: by a key, by their value, or by their position."""

from __future__ import annotations

from math import fsum
from typing import TYPE_CHECKING, Any, NamedTuple
from unicodedata import normalize

from ultra.messages.canonical_json import canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Entry", "Place", "by_key", "by_position", "most_weight", "order_of_items", "plain_text", "stays"]


class Entry(NamedTuple):
    """A value, and the weight of the model that gave it."""

    value: Any
    weight: float


class Place(NamedTuple):
    """One item of the merged list: what the lists that have it say, and at which positions."""

    name: str
    items: list[Entry]
    positions: list[int]


def plain_text(text: str) -> str:
    """Return `text` without what is not its meaning: case, blanks, and how its accents are encoded."""
    return " ".join(normalize("NFC", text).casefold().split())


def most_weight(groups: Mapping[str, Sequence[Entry]]) -> str:
    """Return the name of the group that most weight stands for.

    Ties go to the group with the heaviest model, then by name.
    """

    def rank(name: str) -> tuple[float, float, str]:
        weights = [entry.weight for entry in groups[name]]
        return -round(fsum(weights), 9), -max(weights), name

    return min(groups, key=rank)


def by_key(lists: Sequence[Entry], key: str | None = None) -> list[Place] | None:
    """Return the items of the lists that have the same key, or are the same text.

    The key is `key`, or a name whose values are unique in each list, and of which several lists have some in
    common. None: there is no such name, or the items are neither objects nor texts.
    """
    items = [item for each in lists for item in each.value]
    if items and all(isinstance(item, dict) for item in items):
        shared = set.intersection(*(set(item) for item in items))
        names = [key] if key is not None and key in shared else []
        found = [(name, _named(lists, name)) for name in names] or [
            (name, _named(lists, name)) for name in sorted(shared)
        ]
        usable = [(name, places) for name, places in found if places is not None]
        if not usable:
            return None
        name, places = max(usable, key=lambda each: (_overlap(each[1]), -len(each[1])))
        return places if name == key or _overlap(places) > 0 or len(lists) == 1 else None
    if items and all(isinstance(item, str | bool) for item in items):
        same = _named(lists, None)
        return same if same is not None and (_overlap(same) > 0 or len(lists) == 1) else None
    return [] if not items else None


def by_position(lists: Sequence[Entry]) -> list[list[Entry]]:
    """Return the items that stand at the same position, of the lists that have the most common length."""
    lengths: dict[str, list[Entry]] = {}
    for each in lists:
        lengths.setdefault(f"{len(each.value):09}", []).append(each)
    chosen = lengths[most_weight(lengths)]
    count = len(chosen[0].value)
    return [[Entry(each.value[index], each.weight) for each in chosen] for index in range(count)]


def order_of_items(places: Sequence[Place]) -> list[Place]:
    """Return the places in the order in which most weight has them: by the median of their positions."""

    def rank(place: Place) -> tuple[float, float, str]:
        weighed = sorted(zip(place.positions, (item.weight for item in place.items), strict=True))
        total = fsum(weight for _, weight in weighed)
        if total <= 0:
            return weighed[len(weighed) // 2][0], 0.0, place.name
        so_far, median = 0.0, weighed[-1][0]
        for position, weight in weighed:
            so_far += weight
            if so_far >= total / 2:
                median = position
                break
        mean = fsum(position * weight for position, weight in weighed) / total
        return median, round(mean, 9), place.name

    return sorted(places, key=rank)


def stays(place: Place, lists: Sequence[Entry]) -> bool:
    """Return whether an item is in the merged list: the weight of the lists that have it decides."""
    having = round(fsum(item.weight for item in place.items), 9)
    missing = round(fsum(each.weight for each in lists), 9) - having
    if abs(having - missing) > _NOTHING:
        return having > missing
    heaviest = max(item.weight for item in place.items)
    return heaviest >= max(each.weight for each in lists)


_NOTHING = 1e-8


def _named(lists: Sequence[Entry], name: str | None) -> list[Place] | None:
    """Return the places by the values of `name`, or of the items themselves; None if these are not unique."""
    places: dict[str, Place] = {}
    for each in lists:
        seen: set[str] = set()
        for position, item in enumerate(each.value):
            value = item if name is None else item[name]
            if isinstance(value, dict | list | float) or value is None:
                return None
            known = plain_text(value) if isinstance(value, str) else canonical_json(value)
            known = f"{type(value).__name__} {known}"
            if known in seen:
                return None
            seen.add(known)
            place = places.setdefault(known, Place(known, [], []))
            place.items.append(Entry(item, each.weight))
            place.positions.append(position)
    return list(places.values())


def _overlap(places: Sequence[Place]) -> float:
    """Return the share of the places that several lists have."""
    return sum(len(place.items) > 1 for place in places) / len(places) if places else 0.0
