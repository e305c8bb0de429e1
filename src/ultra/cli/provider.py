"""`ultra provider`: serve simulated models in the protocols of real providers."""

from __future__ import annotations

import os
import shlex
import sys
from math import inf
from typing import TYPE_CHECKING, Annotated

import typer

from ultra.cli.commands import new_app
from ultra.cli.output import write
from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    background: Annotated[
        bool,
        typer.Option(
            "--background",
            help="Go on in the background, without a log, until: kill $ULTRA_PROVIDER_PID.",
        ),
    ] = False,
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

    Prints the variables that lead the usual clients to it, as a shell reads them:

    eval "$(ultra provider --background)"

    Answers are made up, but equal questions get equal ones, with usage, rate limits, errors and streams as
    the real providers send them.
    """
    if background:
        from ultra.cli.background import run_in_background  # noqa: PLC0415 - not for the help alone

        optional = {"--tokens-per-second": tokens_per_second, "--faults": faults}
        options = {
            "--host": host,
            "--port": port,
            "--latency": latency,
            "--seed": seed,
            "--requests-per-minute": requests_per_minute,
            "--tokens-per-minute": tokens_per_minute,
            **{name: value for name, value in optional.items() if value is not None},
        }
        return run_in_background(["provider", *(f"{name}={value}" for name, value in options.items())])
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
            _announce(running.url, running.environment)
            await trio.sleep_forever()

    ended_by = run_until_signalled(serve)
    _report(plan)
    return 0 if ended_by is None else 128 + ended_by


def _announce(url: str, environment: Mapping[str, str]) -> None:
    """Write where it serves, as lines that a shell can read.

    A pipe is closed afterwards: a shell's ``$(ultra provider &)`` waits until nobody can write to it.
    """
    variables = {**environment, "ULTRA_PROVIDER_PID": str(os.getpid())}
    exports = (f"export {name}={shlex.quote(value)}" for name, value in variables.items())
    write(f"# simulated models at {url}", *exports)
    if not sys.stdout.isatty():
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


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
