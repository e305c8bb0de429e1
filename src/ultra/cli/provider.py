"""`ultra provider`: serve simulated models in the protocols of real providers."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Annotated

import typer

from ultra.cli.commands import new_app
from ultra.cli.output import write
from ultra.errors import BadCall

if TYPE_CHECKING:
    from ultra.faults.plan import FaultPlan
    from ultra.faults.rules import Seconds

__all__ = ["app"]

app = new_app()


@app.command(epilog="Exit code: 130 after Ctrl-C, which ends it; 1 failed, 2 bad usage.")
def provider(
    *,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 0,
    latency: Annotated[
        str,
        typer.Option(metavar="SECONDS", help="How long answers take to begin: 0.2, or a range, 0.1-0.5."),
    ] = "0",
    tokens_per_second: Annotated[
        float | None, typer.Option(metavar="N", help="How fast answers are written.  [default: at once]")
    ] = None,
    faults: Annotated[
        str | None, typer.Option(metavar="PLAN.TOML", help="A fault plan to apply to the exchanges.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides what is answered, and latencies.")] = 0,
    requests_per_minute: Annotated[
        int, typer.Option(metavar="N", help="Past this, requests fail with status 429.")
    ] = 10_000,
    tokens_per_minute: Annotated[
        int, typer.Option(metavar="N", help="Likewise, of prompts and answers together.")
    ] = 10_000_000,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            metavar="",
            help="Log each request to stderr; -vv logs more.",
            show_default=False,
        ),
    ] = 0,
) -> int:
    """Serve simulated models in the protocols of OpenAI, Anthropic, Gemini and Ollama.

    Prints the variables that lead the usual clients to it. Answers are made up, but equal questions
    get equal ones, with usage, rate limits, errors and streams as the real providers send them.
    """
    import trio  # noqa: PLC0415 - not for the help alone

    from ultra.cli.logs import configure_logs  # noqa: PLC0415 - as above
    from ultra.cli.signals import run_until_signalled  # noqa: PLC0415 - as above
    from ultra.faults.plan_file import read_plan  # noqa: PLC0415 - as above
    from ultra.faults.provider import simulated_provider  # noqa: PLC0415 - as above

    plan = read_plan(faults) if faults is not None else None
    delay = _parse_seconds(latency)
    configure_logs(verbose)
    served = simulated_provider(
        host=host,
        port=port,
        latency=delay,
        tokens_per_second=inf if tokens_per_second is None else tokens_per_second,
        faults=plan,
        seed=seed,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        keep_requests=0,
    )

    async def serve() -> None:
        async with served as running:
            write(running.url, *(f"export {name}={value}" for name, value in running.environment.items()))
            await trio.sleep_forever()

    ended_by = run_until_signalled(serve)
    _report(plan)
    return 0 if ended_by is None else 128 + ended_by


def _report(plan: FaultPlan | None) -> None:
    """Write which faults were injected."""
    if plan is not None:
        write(str(plan), to_stderr=True)


def _parse_seconds(text: str) -> Seconds:
    """Return a time, or a range of times; raise `BadCall` for other text."""
    least, _, most = text.partition("-")
    try:
        return (float(least), float(most)) if most else float(least)
    except ValueError:
        raise BadCall(f"--latency is {text!r}; give seconds, as in 0.2, or a range, as in 0.1-0.5") from None
