"""Where tests find what they read: the checkout, and what lies beside it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"

SHARED = ROOT.parent / "shared"
"""What the project shares with others. It is not a part of the checkout, and may be absent."""

WIRE = SHARED / "wire"
"""Recorded exchanges with real providers."""

NO_RECORDINGS = f"no recorded exchanges: {WIRE} is absent"
"""Why tests that need them are skipped."""

PANELS = SHARED / "panels"
"""Recorded answers of real models to questions with known answers."""

NO_PANELS = f"no recorded panels: {PANELS} is absent"
"""Why tests that need them are skipped."""

CASES = SHARED / "cases"
"""Public fault reports, each a script that exits 0 where Ultra behaves right."""

NO_CASES = f"no fault reports: {CASES} is absent"
"""Why tests that need them are skipped."""
