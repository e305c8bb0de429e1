"""One text for equal JSON values, to compare them by."""

from __future__ import annotations

from typing import Any, Final

import msgspec

__all__ = ["canonical_json"]

_EXACT: Final = 2**53
"""Whole numbers below this are exact as floats."""


def canonical_json(value: Any) -> str:  # noqa: ANN401 - JSON
    """Return plain JSON as text, the same for equal values: keys in order, and 1.0 as 1.

    ::

        canonical_json({"b": 1.0, "a": None}) == '{"a":null,"b":1}'
    """
    return msgspec.json.encode(_whole_numbers(value), order="sorted").decode()


def _whole_numbers(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return value
