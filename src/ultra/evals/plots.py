"""The plots of a report, as SVG by matplotlib (extra ``eval``)."""

from __future__ import annotations

import io
from math import log
from typing import TYPE_CHECKING, Any, Final

from ultra.errors import MissingExtra
from ultra.evals.statistics import wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.evals.findings import Findings

__all__ = ["plots_of"]

_WIDTH: Final = 10.0
_HEIGHT: Final = 5.2
_ROWS: Final = 26
"""Rows of a legend in one column."""
_NEAR: Final = (0.05, 0.03)
"""Points that are this share of the plot apart, across and up, have one label."""
_ACROSS: Final = 4
_KINDS: Final = (
    ("strategy", "strategies"),
    ("samples", "samples of the best"),
    ("judge", "the judge"),
    ("best", "the best, chosen on the other half"),
    ("member", "members"),
    ("random", "a random member"),
    ("oracle", "the oracle"),
)
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
    from matplotlib.lines import Line2D  # noqa: PLC0415 - an extra
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415 - as above

    axes, key = figure.subplots(1, 2, width_ratios=(3, 1.5 * -(-len(findings.arms) // _ROWS)))
    priced = all(arm.cost for arm in findings.arms)
    points = []
    for arm in findings.arms:
        across = (arm.cost or 0.0) * 1_000 if priced else arm.calls
        accuracy = arm.accuracy
        axes.errorbar(
            [across],
            [accuracy.value * 100],
            yerr=[[(accuracy.value - accuracy.low) * 100], [(accuracy.high - accuracy.value) * 100]],
            fmt=_MARKERS.get(arm.kind, "*"),
            color=_COLOURS[arm.kind],
            capsize=2,
            markersize=6,
            elinewidth=0.8,
            alpha=0.85,
        )
        points.append((across, accuracy.value * 100))
    axes.axhline(findings.panel.ceiling * 100, color=_COLOURS["oracle"], linewidth=1, linestyle="--")
    axes.set_xscale("log")
    least, most = min(across for across, _ in points), max(across for across, _ in points)
    axes.set_xlim(least / 1.4, most * 1.5)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("dollars for 1,000 questions" if priced else "calls for a question")
    axes.set_ylabel("right answers, %")
    axes.set_title("bars: 95 % intervals; dashes: the ceiling 1 - \u03b2; numbers: on the right", fontsize=8)
    axes.grid(visible=True, alpha=0.25)
    for numbers, place in _labels(points, axes.get_xlim(), axes.get_ylim()):
        axes.annotate(numbers, place, xytext=(5, 5), textcoords="offset points", fontsize=8)
    key.axis("off")
    lines = [f"{number}  {arm.name}" for number, arm in enumerate(findings.arms, start=1)]
    columns = -(-len(lines) // _ROWS)
    for number, (line, arm) in enumerate(zip(lines, findings.arms, strict=True)):
        column, row = divmod(number, _ROWS)
        place = column / columns, 1 - (row + 0.5) / _ROWS
        key.text(*place, line, fontsize=7, color=_COLOURS[arm.kind], va="center", transform=key.transAxes)
    kinds = {arm.kind for arm in findings.arms}
    handles = [
        Line2D([], [], linestyle="", marker=_MARKERS.get(kind, "*"), color=_COLOURS[kind], label=label)
        for kind, label in _KINDS
        if kind in kinds
    ]
    axes.legend(handles=handles, fontsize=7, loc="lower right")
    return True


def _labels(
    points: Sequence[tuple[float, float]], across: tuple[float, float], up: tuple[float, float]
) -> list[tuple[str, tuple[float, float]]]:
    """Return the numbers of the points, and where they stand; points that are near have one label."""
    width, height = log(across[1] / across[0]), up[1] - up[0]
    groups: list[list[int]] = []
    for number, (x, y) in enumerate(points):
        for group in groups:
            first = points[group[0]]
            is_near = abs(log(x / first[0])) < _NEAR[0] * width and abs(y - first[1]) < _NEAR[1] * height
            if is_near:
                group.append(number)
                break
        else:
            groups.append([number])
    return [(", ".join(str(number + 1) for number in group), points[group[0]]) for group in groups]


def _confidence(findings: Findings, figure: Any) -> bool:  # noqa: ANN401 - as above
    shown = [arm for arm in findings.arms if arm.kind == "strategy" and arm.calibration]
    if not shown:
        return False
    rows = -(-len(shown) // _ACROSS)
    figure.set_size_inches(_WIDTH, 0.5 + 2.3 * rows)
    grid = figure.subplots(rows, _ACROSS, sharex=True, sharey=True, squeeze=False)
    for number, axes in enumerate(grid.flat):
        if number >= len(shown):
            axes.axis("off")
            continue
        arm = shown[number]
        axes.plot([0, 100], [0, 100], color="#9ca3af", linewidth=1, linestyle="--")
        across = [confidence * 100 for confidence, _, _ in arm.calibration]
        ranges = [wilson(accuracy * count, count) for _, count, accuracy in arm.calibration]
        up = [interval.value * 100 for interval in ranges]
        below = [(interval.value - interval.low) * 100 for interval in ranges]
        above = [(interval.high - interval.value) * 100 for interval in ranges]
        axes.errorbar(across, up, yerr=[below, above], color=_COLOURS["strategy"], marker="o", markersize=4,
                      linewidth=1, elinewidth=0.8, capsize=2)  # fmt: skip
        auroc = "" if arm.confidence_auroc is None else f"\nAUROC {arm.confidence_auroc:.2f}"
        axes.set_title(f"{arm.name}{auroc}", fontsize=7)
        axes.set_xlim(-3, 103)
        axes.set_ylim(0, 103)
        axes.tick_params(labelsize=7)
        axes.grid(visible=True, alpha=0.25)
    figure.supxlabel("mean confidence of a fifth, %", fontsize=8)
    figure.supylabel("right answers, % (95 % intervals)", fontsize=8)
    return True


def _correlation(findings: Findings, figure: Any) -> bool:  # noqa: ANN401 - as above
    names = findings.members
    if len(names) < 2:  # noqa: PLR2004 - one model has nobody beside it
        return False
    figure.set_size_inches(_WIDTH * 0.7, _HEIGHT)
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
