"""The notebook among the examples, executed from its first cell to its last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient

from helpers.paths import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TIMEOUT = 120
"""Seconds after which a cell is given up."""

# Jupyter's client meets these in Python's and its own libraries.
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def outputs(notebook: Any) -> list[dict[str, Any]]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_the_notebook_asks_shows_a_run_live_and_plots_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    read: Callable[..., Any] = nbformat.read
    notebook = read(EXAMPLES / "notebook.ipynb", as_version=4)
    assert outputs(notebook) == []  # what it shows is made by whoever runs it

    NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3").execute(cwd=str(tmp_path))

    found = outputs(notebook)
    printed = "".join(output["text"] for output in found if output["output_type"] == "stream")
    shown = [output["data"] for output in found if "data" in output]
    assert "Paris." in printed
    table = next(data["text/html"] for data in shown if "<table>" in data.get("text/html", ""))
    assert "<td>initial</td><td>careful</td>" in table
    assert "thinks" not in table  # it was brought up to date until the end
    assert any("'vote': 0.75" in data.get("text/plain", "") for data in shown)
    assert any("image/png" in data for data in shown)
