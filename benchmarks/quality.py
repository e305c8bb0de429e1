"""What strategies gain, measured: the tables of docs/quality.md.

``python -m benchmarks.quality FOLDER`` reads the recorded panels in the folder (gsm and math-l5, text and
labels), adds simulated ones, and prints Markdown; with ``recorded`` or ``simulated`` behind it, only these.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ultra.evals.evaluation import Evaluation
from ultra.evals.panel import Panel
from ultra.evals.report_text import markdown_table
from ultra.evals.simulated import SCENARIOS, SimulatedRecorder
from ultra.evals.tables import Table

if TYPE_CHECKING:
    from ultra.evals.findings import Findings

CHEAP = ("gpt-4o-mini-2024-07-18", "claude-3-haiku-20240307", "gemini-1.5-flash")
PANELS = (
    ("MATH level 5, six of equal strength", "math-l5.text.jsonl.gz", None),
    (
        "MATH level 5, three of equal strength",
        "math-l5.labels.jsonl.gz",
        ("Qwen2.5-72B-Instruct", "claude-3-5-sonnet-20241022", "gpt-4o-2024-08-06"),
    ),
    (
        "MATH level 5, one strong and two weak",
        "math-l5.labels.jsonl.gz",
        ("o1-mini-2024-09-12", "claude-3-haiku-20240307", "gemma-2-9b-it"),
    ),
    ("GSM8K, six small and cheap ones", "gsm.text.jsonl.gz", None),
    ("GSM8K, three cheap ones", "gsm.labels.jsonl.gz", CHEAP),
    (
        "GSM8K, one strong and two weak",
        "gsm.labels.jsonl.gz",
        ("claude-3-5-sonnet-20241022", "Qwen2-7B-Instruct", "gemma-2-2b-it"),
    ),
)
QUESTIONS = 200
"""Of a simulated panel, so many are enough to see whether theory is found within the intervals."""
SAMPLES = 7
SHOWN = {"strategy", "best", "oracle", "samples"}


def main(folder: str, only: str = "") -> None:
    """Print all tables, or ``only`` those of recorded or of simulated panels."""
    if only != "simulated":
        _recorded(folder)
    if only != "recorded":
        _simulated()


def _recorded(folder: str) -> None:
    print("## Recorded panels\n")
    for title, file, models in PANELS:
        panel = Panel.open(Path(folder, file))
        if models is not None:
            panel.only(models)
        _show(title, Evaluation(panel, unrecorded="fail").run())


def _simulated() -> None:
    print("## Simulated panels\n")
    for name, simulated in SCENARIOS.items():
        panel = simulated.panel(name)
        panel.dataset = panel.dataset.first(QUESTIONS)
        recorder = SimulatedRecorder(simulated, panel)
        findings = Evaluation(panel, recorder=recorder, most_samples=SAMPLES).run()
        theory = [f"all wrong {simulated.expected_all_wrong():.1%}"]
        if simulated.alike == 1:
            theory += [
                f"vote {simulated.expected_majority():.1%} with {simulated.expected_vote_calls():.2f} calls",
                f"cascade {simulated.expected_cascade_calls():.2f} calls",
            ]
        theory += [f"route {simulated.expected_choice(0):.1%}"]
        _show(name, findings, f"Theory: {', '.join(theory)}. ")


def _show(title: str, findings: Findings, more: str = "") -> None:
    panel = findings.panel
    print(f"### {title}\n")
    correlation = "-" if panel.mean_correlation is None else f"{panel.mean_correlation:.2f}"
    votes = "-" if panel.effective_votes is None else f"{panel.effective_votes:.1f}"
    print(
        f"{more}n = {findings.questions}; all wrong {panel.all_wrong.value:.1%} "
        f"[{panel.all_wrong.low:.1%}, {panel.all_wrong.high:.1%}]; correlation of errors {correlation}; "
        f"{votes} effective votes of {len(findings.members)}; best member {panel.gap * 100:.1f} points above "
        "the mean of the others.\n"
    )
    rows = []
    for arm in findings.arms:
        if arm.kind not in SHOWN:
            continue
        beside = arm.versus_best
        rows.append(
            (
                arm.name,
                f"{arm.accuracy.value:.1%}",
                "-"
                if beside is None
                else f"{beside.difference.value * 100:+.1f} [{beside.difference.low * 100:+.1f}, "
                f"{beside.difference.high * 100:+.1f}]",
                "-" if beside is None else f"{beside.detectable * 100:.1f}",
                arm.verdict or "-",
                f"{arm.calls:.2f}",
                "-" if arm.cost is None else f"{arm.cost * 1000:.3g}",
                "-" if arm.confidence_auroc is None else f"{arm.confidence_auroc:.2f}",
            )
        )
    columns = (
        "arm",
        "right",
        "points over the best",
        "detectable",
        "verdict",
        "calls",
        "$ per 1,000",
        "AUROC",
    )
    print("\n".join(markdown_table(Table("", columns, tuple(rows)))), "\n")
    for arm in findings.arms:
        if arm.note and arm.kind == "strategy":
            print(f"- {arm.name}: {arm.note}.")
    missing = [name for name in findings.left_out if name != "fields"]
    if missing:
        print(f"- Not measured: {'; '.join(missing)}.")
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
