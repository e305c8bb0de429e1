"""The output of `ultra --version`, without typer, which takes many times as long to import."""

from __future__ import annotations

from importlib.metadata import version

__all__ = ["version_line"]


def version_line() -> str:
    """Return the name of the command and the version of the installed distribution."""
    return f"ultra {version('ultra-llm')}"
