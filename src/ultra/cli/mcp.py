"""`ultra mcp`: the tools of Ultra for agents, by the Model Context Protocol."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from ultra.cli.commands import new_app
from ultra.cli.first_error import raising_first
from ultra.cli.options import Verbose  # noqa: TC001 - typer reads them
from ultra.cli.output import write
from ultra.cli.serve import configuration_of

if TYPE_CHECKING:
    from ultra.service.core import Service

__all__ = ["app"]

app = new_app()


@app.command(
    epilog="Exit code: 0 once the client has closed stdin, or after a signal; 1 failed, 2 bad usage."
)
def mcp(
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A configuration with models and ensembles.  [default: ULTRA_CONFIG, or ultra.toml, if it "
            "is here, on top of your own (ultra config path)]",
            show_default=False,
        ),
    ] = None,
    http: Annotated[
        bool, typer.Option("--http", help="Serve over HTTP, at /mcp, and not on stdin and stdout.")
    ] = False,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="The address to listen on; without keys, of this machine only."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8081,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Let pages of this origin ask over HTTP; may be given again.",
            show_default=False,
        ),
    ] = None,
    verbose: Verbose = 0,
) -> int:
    """Let agents ask ensembles: a server of the Model Context Protocol.

    Its tools are ask (one answer, merged of several models'), compare (the answers side by side) and models.
    An agent starts it by itself, and talks to it over stdin and stdout; see docs/mcp.md for how to add it.
    Nothing but the protocol is written to stdout; logs go to stderr.

    With --http it serves any number of agents, and prints its address as the first line.
    """
    from ultra.cli.logs import configure_logs  # noqa: PLC0415 - not for the help alone
    from ultra.service.setup import make_service  # noqa: PLC0415 - as above

    configure_logs(verbose)
    service = make_service(configuration_of(config))
    if http:
        return _over_http(service, host, port, allow_origin or [])
    return _on_stdio(service)


def _on_stdio(service: Service) -> int:
    from ultra.cli.signals import run_until_signalled  # noqa: PLC0415 - not for the help alone
    from ultra.mcp.server import make_server  # noqa: PLC0415 - as above
    from ultra.mcp.stdio import serve_stdio  # noqa: PLC0415 - as above

    server = make_server(service)

    run_until_signalled(partial(raising_first, partial(serve_stdio, server)))
    return 0


def _over_http(service: Service, host: str, port: int, origins: list[str]) -> int:
    import trio  # noqa: PLC0415 - not for the help alone

    from ultra.mcp.http import PATH, make_mcp_app  # noqa: PLC0415 - as above
    from ultra.service.server import check_address, listen, prepare_process, serve  # noqa: PLC0415 - as above

    check_address(service.access, host)
    mcp_app = make_mcp_app(service, origins=origins)
    listening = listen(host, port)

    def announce(url: str) -> None:
        prepare_process()
        write(f"{url}{PATH}")

    async def run() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            await serve(service, listening, announce=announce, signals=aiter(signals), app=mcp_app)

    trio.run(raising_first, run)
    return 0
