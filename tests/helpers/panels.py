"""The recorded panels beside the repository: answers of real models to questions with known answers."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from helpers.paths import SHARED


def text_panel(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The header of a panel with texts, and its questions; skips the test where there is none."""
    path = SHARED / "panels" / f"{name}.text.jsonl.gz"
    if not path.exists():
        pytest.skip(f"the recorded panels are not beside the project: {path} is missing")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        header, *questions = [json.loads(line) for line in file]
    return header, questions
