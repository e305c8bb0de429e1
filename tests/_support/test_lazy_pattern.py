"""Patterns that are compiled when they are first asked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ultra._support.lazy import lazy_pattern

if TYPE_CHECKING:
    import pytest


def test_a_pattern_is_compiled_once_and_not_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def counting(pattern: str, flags: int = 0) -> re.Pattern[str]:
        compiled.append(pattern)
        return original(pattern, flags)

    original = re.compile
    monkeypatch.setattr(re, "compile", counting)
    word = lazy_pattern("[a-z]+", re.IGNORECASE)

    assert compiled == []
    assert word().findall("Two WORDS") == ["Two", "WORDS"]
    assert word() is word()
    assert compiled == ["[a-z]+"]
