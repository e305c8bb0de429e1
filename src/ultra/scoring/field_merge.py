"""One value put together from several models' structured answers, field by field.

Enums, booleans and whole numbers are voted on by weight. Of other numbers, the narrow window that holds most
weight counts (the estimator of a mode by Chernoff, 1964), and in it the weighted median. Short texts with
digits, and those of one word, are voted on, as enums are: they are dates and names. Of other texts, it is the
medoid: the text that is most like the others (minimum Bayes risk, Kumar and Byrne, 2004). Every value is one
that a model gave.

The result does not depend on the order of the answers, and what all models say is not changed.
"""

from __future__ import annotations

from itertools import accumulate
from math import fsum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import Struct

from ultra._support.cooperative import run_at_once
from ultra.messages.canonical_json import canonical_json
from ultra.messages.schema_forms import resolved
from ultra.scoring.agreement import count_in_pieces
from ultra.scoring.list_alignment import (
    Entry,
    by_key,
    by_position,
    most_weight,
    order_of_items,
    plain_text,
    stays,
)
from ultra.scoring.weight_sums import rounded, summed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ultra._support.cooperative import Work

__all__ = ["Field", "MergedFields", "merge_fields", "merge_in_pieces", "with_choices"]

_FIELDS_IN_A_PIECE: Final = 50


class Field(Struct, frozen=True):
    """One field of a merged value.

    `steps` lead to it, `share` (0..1) is the weight that stands for its value, and `choices` are the
    different values that models gave, the merged one among them.
    """

    steps: tuple[str | int, ...]
    share: float
    choices: tuple[Any, ...]


class MergedFields(NamedTuple):
    """A merged value, and its fields by their JSON paths, such as ``$.items[0].price``."""

    value: Any
    fields: dict[str, Field]

    @property
    def shares(self) -> dict[str, float]:
        """The share of each field."""
        return {path: field.share for path, field in self.fields.items()}


def merge_fields(
    answers: Sequence[tuple[Any, float]],
    schema: Mapping[str, Any] | None = None,
    *,
    key: str | None = None,
    tolerance: float = 0.01,
) -> MergedFields:
    """Merge structured answers, each plain JSON with the weight of its model.

    Objects are merged name by name; whether an optional name is there is voted on. Lists of objects are
    aligned by `key`, or by a name whose values are unique in each list; lists of texts by their values;
    others by position, where most lists have the same length. Numbers within the relative `tolerance` of
    each other count as one. It takes a time that is linear in the answers, but for sorting. ::

        merge_fields([({"n": 1}, 1.0), ({"n": 2}, 1.0), ({"n": 2}, 1.0)]).value == {"n": 2}

    Raises:
        ValueError: there are no answers.
    """
    return run_at_once(merge_in_pieces(answers, schema, key=key, tolerance=tolerance))


def merge_in_pieces(
    answers: Sequence[tuple[Any, float]],
    schema: Mapping[str, Any] | None = None,
    *,
    key: str | None = None,
    tolerance: float = 0.01,
) -> Work[MergedFields]:
    """Do as `merge_fields`, and yield every few milliseconds, so that others can run in between."""
    if not answers:
        raise ValueError("there are no answers to merge")
    weights = [max(0.0, weight) for _, weight in answers]
    if not any(weights):
        weights = [1.0] * len(answers)
    entries = [Entry(value, weight) for (value, _), weight in zip(answers, weights, strict=True)]
    entries.sort(key=_order)
    merger = _Merger(dict(schema or {}), fsum(weights), key, tolerance)
    value = yield from merger.merge((), entries, merger.root)
    return MergedFields(value, {_path(steps): field for steps, field in merger.fields.items()})


def _order(entry: Entry) -> tuple[float, str, str]:
    # The last is for what is equal and written in two ways, such as 5 and 5.0.
    return -entry.weight, canonical_json(entry.value), repr(entry.value)


def with_choices(merged: MergedFields, chosen: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return the merged value with the `chosen` values at these paths; what is no choice is left."""
    value = merged.value
    for path, choice in chosen.items():
        field = merged.fields.get(path)
        known = {canonical_json(each): each for each in field.choices} if field is not None else {}
        if field is not None and canonical_json(choice) in known:
            value = _put(value, field.steps, known[canonical_json(choice)])
    return value


class _Merger:
    """Merges the answers of one question; `total` is the weight of all of them."""

    def __init__(self, root: dict[str, Any], total: float, key: str | None, tolerance: float) -> None:
        self.root = root
        self.fields: dict[tuple[str | int, ...], Field] = {}
        self._total = total
        self._key = key
        self._tolerance = tolerance

    def merge(self, steps: tuple[str | int, ...], entries: list[Entry], schema: object) -> Work[Any]:
        """Merge the values that models gave at one place."""
        if len(self.fields) % _FIELDS_IN_A_PIECE == _FIELDS_IN_A_PIECE - 1:
            yield
        kinds: dict[str, list[Entry]] = {}
        for entry in entries:
            kinds.setdefault(_kind(entry.value), []).append(entry)
        kind = most_weight(kinds)
        same = kinds[kind]
        if kind == "object":
            return (yield from self._object(steps, same, schema))
        if kind == "array":
            return (yield from self._list(steps, same, self._narrowed(schema, kind)))
        value, share = self._scalar(kind, same, self._narrowed(schema, kind))
        self._keep(steps, share, (entry.value for entry in entries))
        return value

    def _keep(self, steps: tuple[str | int, ...], share: float, values: Iterable[Any]) -> None:
        choices = {canonical_json(value): value for value in values}
        self.fields[steps] = Field(steps, min(1.0, share), tuple(choices.values()))

    def _share(self, entries: Iterable[Entry]) -> float:
        return rounded(fsum(entry.weight for entry in entries) / self._total)

    # --- objects -----------------------------------------------------------------------------------------

    def _object(
        self, steps: tuple[str | int, ...], entries: list[Entry], schema: object
    ) -> Work[dict[str, Any]]:
        entries, found = self._one_variant(entries, schema)
        known = found.get("properties")
        properties: dict[str, Any] = known if isinstance(known, dict) else {}
        required = found.get("required") or ()
        given = {name for entry in entries for name in entry.value}
        names = [name for name in properties if name in given] + sorted(given - properties.keys())
        merged: dict[str, Any] = {}
        if not names:
            self._keep(steps, self._share(entries), ({} for _ in entries))
        for name in names:
            having = [entry for entry in entries if name in entry.value]
            missing = [entry for entry in entries if name not in entry.value]
            if name not in required and missing and most_weight({"a": having, "b": missing}) == "b":
                self._keep((*steps, name), self._share(missing), ())
                continue
            values = [Entry(entry.value[name], entry.weight) for entry in having]
            merged[name] = yield from self.merge((*steps, name), values, properties.get(name))
        return merged

    def _one_variant(self, entries: list[Entry], schema: object) -> tuple[list[Entry], dict[str, Any]]:
        """Return the objects of the variant of a tagged union that most weight stands for, and its schema."""
        found = resolved(schema, self.root)
        variants = found.get("anyOf") or found.get("oneOf")
        if not isinstance(variants, list):
            return entries, found
        discriminator = found.get("discriminator")
        tag = discriminator.get("propertyName") if isinstance(discriminator, dict) else None
        if not isinstance(tag, str) or not all(tag in entry.value for entry in entries):
            return entries, self._narrowed(schema, "object")
        tagged: dict[str, list[Entry]] = {}
        for entry in entries:
            tagged.setdefault(canonical_json(entry.value[tag]), []).append(entry)
        chosen = tagged[most_weight(tagged)]
        for variant in (resolved(each, self.root) for each in variants):
            names = variant.get("properties", {}).get(tag, {})
            if chosen[0].value[tag] in (names.get("enum") or [names.get("const")]):
                return chosen, variant
        return chosen, {}

    def _narrowed(self, schema: object, kind: str) -> dict[str, Any]:
        """Return the schema, of a union the part that is of this kind."""
        found = resolved(schema, self.root)
        for variant in found.get("anyOf") or found.get("oneOf") or ():
            inner = resolved(variant, self.root)
            types = inner.get("type")
            of_kind = {"number": {"number", "integer"}}.get(kind, {kind})
            if types in of_kind if isinstance(types, str) else "enum" in inner or "const" in inner:
                return inner
        return found

    # --- lists -------------------------------------------------------------------------------------------

    def _list(
        self, steps: tuple[str | int, ...], entries: list[Entry], schema: dict[str, Any]
    ) -> Work[list[Any]]:
        items = schema.get("items")
        first = schema.get("prefixItems") or []
        fixed = bool(first) or ("minItems" in schema and schema.get("minItems") == schema.get("maxItems"))
        aligned = None if fixed else by_key(entries, self._key)
        if aligned is None:
            places = by_position(entries)
        else:
            places = [place.items for place in order_of_items(aligned) if stays(place, entries)]
        if not places:
            self._keep(steps, self._share(e for e in entries if not e.value) or self._share(entries), ())
        merged = []
        for index, place in enumerate(places):
            inner = first[index] if index < len(first) else items
            merged.append((yield from self.merge((*steps, index), place, inner)))
        return merged

    # --- values ------------------------------------------------------------------------------------------

    def _scalar(self, kind: str, entries: list[Entry], schema: dict[str, Any]) -> tuple[Any, float]:
        groups: dict[str, list[Entry]] = {}
        for entry in entries:
            groups.setdefault(canonical_json(entry.value), []).append(entry)
        chosen = groups[most_weight(groups)]
        if len(groups) > 1 and kind == "number" and schema.get("type") != "integer":
            if not all(isinstance(entry.value, int) for entry in entries):
                chosen = self._cluster(entries)
                return _median(chosen), self._share(chosen)
        elif len(groups) > 1 and kind == "string" and _EXACT.isdisjoint(schema):
            return self._text(entries)
        return chosen[0].value, self._share(chosen)

    def _cluster(self, entries: list[Entry]) -> list[Entry]:
        """Return the numbers of the window that holds most weight, as wide as the tolerance."""
        ordered = sorted(entries, key=lambda entry: (entry.value, -entry.weight))
        until = [0.0, *accumulate(entry.weight for entry in ordered)]
        windows: list[tuple[float, float, int, int]] = []
        end = 0
        for begin, entry in enumerate(ordered):
            bound = self._bound(entry.value)
            while end < len(ordered) and ordered[end].value <= bound:
                end += 1
            weight = round(until[end] - until[begin], 9)
            windows.append((-weight, ordered[end - 1].value - entry.value, begin, end))
        most = min(windows)[0]
        equals = [window for window in windows if window[0] == most]
        _, _, begin, end = min(
            equals, key=lambda each: (-max(entry.weight for entry in ordered[each[2] : each[3]]), each)
        )
        return ordered[begin:end]

    def _bound(self, value: float) -> float:
        """Return the largest number that counts as one with `value`: relative to the larger of the two."""
        share = 1 - self._tolerance
        return max(value, rounded(value / share if value > 0 else value * share))

    def _text(self, entries: list[Entry]) -> tuple[str, float]:
        alike: dict[str, list[Entry]] = {}
        spelt: dict[str, list[Entry]] = {}
        for entry in entries:
            alike.setdefault(plain_text(entry.value), []).append(entry)
            spelt.setdefault(entry.value, []).append(entry)
        chosen = alike[most_weight(alike)]
        if self._share(chosen) > 1 / 2 or all(map(_is_code, spelt)):
            own = {entry.value: spelt[entry.value] for entry in chosen}
            return most_weight(own), self._share(chosen)
        weights = {text: summed(entry.weight for entry in spelt[text]) for text in sorted(spelt)}
        votes = _similarity(weights)
        heaviest = {text: max(entry.weight for entry in spelt[text]) for text in weights}
        medoid = max(weights, key=lambda text: (round(votes[text], 9), weights[text], heaviest[text]))
        return medoid, votes[medoid] * self._share(entries)


_EXACT = frozenset({"enum", "const", "format", "pattern"})
"""Texts that a schema describes so are names and dates: one that is nearly the same is another one."""


_MOST_WORDS: Final = 6
"""A text of so many words with a digit in it is a date, a number or an address, and no prose."""


def _is_code(text: str) -> bool:
    """Return whether another text that is nearly the same as this one means something else."""
    words = text.split()
    return len(words) <= 1 or (len(words) <= _MOST_WORDS and any(map(str.isdigit, text)))


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def _similarity(weights: Mapping[str, float]) -> dict[str, float]:
    """Return how much each text has in common with all, by weight (0..1)."""
    texts = {str(number): text for number, text in enumerate(weights)}
    by_number = {number: weights[text] for number, text in texts.items()}
    work = count_in_pieces("", texts, by_number, by_text=True, read=dict.fromkeys(texts.values()))
    return {texts[number]: vote for number, vote in run_at_once(work).votes.items()}


def _median(entries: Sequence[Entry]) -> Any:  # noqa: ANN401 - a number
    """Return the weighted median of numbers in their order."""
    half, so_far = fsum(entry.weight for entry in entries) / 2, 0.0
    for entry in entries:
        so_far += entry.weight
        if so_far >= half:
            return entry.value
    return entries[-1].value


def _put(value: Any, steps: Sequence[str | int], choice: Any) -> Any:  # noqa: ANN401 - JSON
    if not steps:
        return choice
    inner = _put(value[steps[0]], steps[1:], choice)
    if isinstance(value, list):
        return [inner if index == steps[0] else item for index, item in enumerate(value)]
    return {**value, steps[0]: inner}


def _path(steps: Sequence[str | int]) -> str:
    """Return the JSON path (RFC 9535) of a field."""
    return "$" + "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" if step.isidentifier() else f"[{_quoted(step)}]"
        for step in steps
    )


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
