"""`ultra chaos`: simulations that check the guarantees of the runtime."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ultra.cli.commands import new_app
from ultra.cli.output import write
from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ultra.simulation.campaign import Campaign

__all__ = ["app"]

app = new_app()

SEEDS = 200
SHOWN_VIOLATIONS = 10


@app.command(epilog="Exit code: 0 if every guarantee held, 1 if one was broken, 2 bad usage, 130 Ctrl-C.")
def chaos(
    *,
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help=f"How many seeds to run.  [default: {SEEDS}]")
    ] = None,
    start: Annotated[
        int | None, typer.Option(min=0, metavar="S", help="The first of them.  [default: 0]")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="S", help="Run this one alone.")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="With --seed: print all that happens.")] = False,
    processes: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Processes to use.  [default: one for each processor]"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> int:
    """Simulate actors and a whole orchestrator under faults, and check all that is guaranteed.

    One seed decides the actors, the models, the work, the faults, the schedule and the clock; the same
    seed always gives the same run. See docs/semantics.md for the guarantees and their numbers.
    """
    if seed is None and trace:
        raise BadCall("--trace shows one run: say which, with --seed")
    if seed is not None and (seeds is not None or start is not None):
        raise BadCall("--seed runs one seed alone; leave out --seeds and --start")
    if trace and json:
        raise BadCall("--trace is for people and --json is for programs; leave one of them out")
    if seed is not None and trace:
        return _replay(seed)

    from ultra.cli.json_output import write_document  # noqa: PLC0415 - not for the help alone
    from ultra.simulation.campaign import run_campaign  # noqa: PLC0415 - as above

    first, count = (seed, 1) if seed is not None else (start or 0, seeds or SEEDS)
    with _progress(count, shown=not json and sys.stderr.isatty()) as on_progress:
        campaign = run_campaign(first, count, processes=processes, on_progress=on_progress)
    if json:
        write_document(_as_document(campaign))
    else:
        write(*_as_lines(campaign))
    return 1 if campaign.violations else 0


def _replay(seed: int) -> int:
    from ultra.simulation.one_seed import run_seed  # noqa: PLC0415 - not for the help alone

    report = run_seed(seed, trace=True, digest=True)
    for line in report.trace:
        write(line)
    write(f"seed {seed}: {report.messages} messages, trace {report.digest}", *map(str, report.violations))
    return 1 if report.violations else 0


def _as_document(campaign: Campaign) -> dict[str, object]:
    return {
        "seeds": campaign.seeds,
        "seconds": round(campaign.seconds, 3),
        "seeds_per_second": round(campaign.seeds_per_second, 1),
        "violations": campaign.violations,
        "faults": campaign.faults,
        "checks": campaign.checks,
    }


def _as_lines(campaign: Campaign) -> list[str]:
    broken: dict[int, int] = {}
    for violation in campaign.violations:
        broken[violation.guarantee] = broken.get(violation.guarantee, 0) + 1
    seeds = f"{campaign.seeds:,} seed{'s' * (campaign.seeds != 1)}"
    speed = f"{seeds} in {campaign.seconds:.1f} s ({campaign.seeds_per_second:.1f} a second)"
    lines = [f"{speed}, {campaign.messages:,} messages", "", "faults injected"]
    lines += [f"  {kind:<21} {count:>12,}" for kind, count in campaign.faults.items()]
    lines += ["", "guarantees checked"]
    for guarantee, count in campaign.checks.items():
        times = f", broken {broken[guarantee]:,} times" if guarantee in broken else ""
        lines.append(f"  {guarantee:>2} {count:>14,} times{times}")
    lines.append("")
    for violation in campaign.violations[:SHOWN_VIOLATIONS]:
        lines += [str(violation), f"    to replay it: ultra chaos --seed {violation.seed} --trace", ""]
    count = len(campaign.violations)
    above = f"; the first {SHOWN_VIOLATIONS} are above" if count > SHOWN_VIOLATIONS else ""
    lines.append(f"{count:,} violation{'s' * (count != 1)}{above}" if count else "no violations")
    return lines


@contextmanager
def _progress(total: int, *, shown: bool) -> Iterator[Callable[[Campaign], None]]:
    """Show a progress bar on stderr, if `shown`."""
    if not shown:
        yield lambda _: None
        return

    from rich.console import Console  # noqa: PLC0415 - only for people
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total)

        def show(campaign: Campaign) -> None:
            violations = f", [red]{len(campaign.violations)} violations" if campaign.violations else ""
            text = f"{campaign.seeds_per_second:.0f} seeds/s{violations}"
            progress.update(bar, completed=campaign.seeds, description=text)

        yield show
