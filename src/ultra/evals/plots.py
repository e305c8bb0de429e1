"""The plots of a report, as SVG by matplotlib (extra ``eval``)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

from ultra.errors import MissingExtra

if TYPE_CHECKING:
    from ultra.evals.findings import Findings

__all__ = ["plots_of"]

_WIDTH: Final = 8.0
_HEIGHT: Final = 4.8
_COLOURS: Final = {
    "member": "#6b7280",
    "random": "#6b7280",
    "best": "#b45309",
    "samples": "#b45309",
    "strategy": "#1d4ed8",
    "judge": "#7c3aed",
    "oracle": "#15803d",
}
_MARKERS: Final = {"member": "o", "random": "x", "best": "D", "samples": "D", "strategy": "s", "judge": "^"}


def plots_of(findings: Findings) -> dict[str, str]:
    """Return the plots of a report as SVG, by their titles; they are the same for the same findings.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure  # noqa: PLC0415 - as above
    except ImportError as error:
        raise MissingExtra("plots of an evaluation", "eval") from error
    plots: dict[str, str] = {}
    with mpl.rc_context({"svg.hashsalt": "ultra", "svg.fonttype": "none", "font.size": 10}):
        for title, draw in (
            ("Accuracy over cost", _accuracy_over_cost),
            ("Confidence against accuracy", _confidence),
            ("Correlation of errors", _correlation),
        ):
            figure: Any = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
            if draw(findings, figure):
                plots[title] = _as_svg(figure)
    return plots


def _accuracy_over_cost(findings: Findings, figure: Any) -> bool:  # noqa: ANN401 - of an optional package
    axes = figure.add_subplot()
    priced = all(arm.cost for arm in findings.arms)
    for arm in findings.arms:
        across = (arm.cost or 0.0) * 1_000 if priced else arm.calls
        accuracy = arm.accuracy
        axes.errorbar(
            [across],
            [accuracy.value * 100],
            yerr=[[(accuracy.value - accuracy.low) * 100], [(accuracy.high - accuracy.value) * 100]],
            fmt=_MARKERS.get(arm.kind, "*"),
            color=_COLOURS[arm.kind],
            capsize=3,
            markersize=7,
            elinewidth=1,
        )
        axes.annotate(
            arm.name, (across, accuracy.value * 100), xytext=(6, 4), textcoords="offset points", fontsize=8
        )
    ceiling = findings.panel.ceiling * 100
    axes.axhline(ceiling, color=_COLOURS["oracle"], linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlabel("dollars for 1,000 questions" if priced else "calls for a question")
    axes.set_ylabel("right answers, % (bars: 95 % intervals; dashes: the ceiling)")
    axes.grid(visible=True, alpha=0.25)
    return True


def _confidence(findings: Findings, figure: Any) -> bool:  # noqa: ANN401 - as above
    shown = [arm for arm in findings.arms if arm.kind == "strategy" and arm.calibration]
    if not shown:
        return False
    axes = figure.add_subplot()
    axes.plot([0, 100], [0, 100], color="#9ca3af", linewidth=1, linestyle="--")
    for arm in shown:
        across = [confidence * 100 for confidence, _, _ in arm.calibration]
        up = [accuracy * 100 for _, _, accuracy in arm.calibration]
        (line,) = axes.plot(across, up, marker="o", label=arm.name)
        axes.scatter(
            across, up, s=[10 + count for _, count, _ in arm.calibration], color=line.get_color(), alpha=0.25
        )
    axes.set_xlabel("mean confidence, % (area: how many questions)")
    axes.set_ylabel("right answers, %")
    axes.set_xlim(0, 103)
    axes.set_ylim(0, 103)
    axes.grid(visible=True, alpha=0.25)
    axes.legend(fontsize=8)
    return True


def _correlation(findings: Findings, figure: Any) -> bool:  # noqa: ANN401 - as above
    names = findings.members
    if len(names) < 2:  # noqa: PLR2004 - one model has nobody beside it
        return False
    axes = figure.add_subplot()
    table = [
        [1.0 if one == other else (findings.panel.correlations[one].get(other) or 0.0) for other in names]
        for one in names
    ]
    image = axes.imshow(table, vmin=0, vmax=1, cmap="Blues")
    for row, values in enumerate(table):
        for column, value in enumerate(values):
            axes.text(
                column,
                row,
                f"{value:.2f}",
                ha="center",
                va="center",
                color="white" if value > 0.5 else "black",  # noqa: PLR2004 - on dark
            )
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    figure.colorbar(image, ax=axes, label="correlation of errors")
    return True


def _as_svg(figure: Any) -> str:  # noqa: ANN401 - as above
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
