"""`ultra serve`: the service, in this process or in several."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from ultra.cli.commands import new_app
from ultra.cli.output import tell, write

if TYPE_CHECKING:
    from ultra.config.loading import Configuration
    from ultra.service.core import Service

__all__ = ["app", "configuration_of", "innermost"]

app = new_app()


@app.command(epilog="Exit code: 0 after SIGTERM or Ctrl-C, once it has drained; 1 failed, 2 bad usage.")
def serve(
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A configuration with models, ensembles and settings.  [default: ULTRA_CONFIG, or "
            "ultra.toml, if it is here]",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="The address to listen on; without keys, of this machine only."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8080,
    workers: Annotated[
        int, typer.Option(min=1, max=256, metavar="N", help="How many processes answer requests.")
    ] = 1,
    fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log to stderr in lines of JSON; -vv logs more.")
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            metavar="",
            help="Log to stderr; -vv logs more.",
            show_default=False,
        ),
    ] = 0,
) -> int:
    """Serve ensembles and models to the clients of OpenAI's API.

    Prints its address as the first line. Without a configuration it offers a model of each provider whose key
    is set, or else the voices of the local model, and an ensemble of them all, which is called ultra:

    curl http://127.0.0.1:8080/v1/chat/completions -H 'content-type: application/json'
    -d '{"model": "ultra", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'

    SIGTERM and Ctrl-C let it drain: what was asked before is answered, and a second signal ends that.
    """
    from ultra.cli.logs import configure_logs  # noqa: PLC0415 - not for the help alone
    from ultra.service.server import check_address, listen  # noqa: PLC0415 - as above
    from ultra.service.setup import make_service  # noqa: PLC0415 - as above

    configure_logs(verbose, as_json=log_json)
    source = configuration_of(config)
    service = make_service(source)
    check_address(service, host)
    if fd is not None:
        return _serve(service, socket.socket(fileno=fd), is_worker=True)
    listening = listen(host, port)
    if workers > 1:
        from ultra.cli.workers import run_workers  # noqa: PLC0415 - only for several

        _tell_of_sharing(source)
        arguments = ["serve", *(("--config", str(config)) if config else ()), "--host", host]
        arguments += ["--log-json"] * log_json + ["-v"] * verbose
        return run_workers(arguments, listening, workers)
    return _serve(service, listening)


def configuration_of(given: Path | None) -> Configuration | None:
    """Return the configuration of this path; of none, that which is found; None: there is none."""
    from ultra.config.loading import load_configuration  # noqa: PLC0415 - not for the help alone
    from ultra.service.setup import found_configuration  # noqa: PLC0415 - as above

    return found_configuration() if given is None else load_configuration(given)


def _tell_of_sharing(configuration: Configuration | None) -> None:
    cache = configuration.cache if configuration is not None else None
    shared = cache is not None and cache.enabled and cache.store != "memory"
    own = "Each keeps answers of its own (set a store in [cache])"
    answers = "They share kept answers" if shared else own
    tell(f"limits, metrics and joined requests are of each process by itself. {answers}")


def _serve(service: Service, listening: socket.socket, *, is_worker: bool = False) -> int:
    import trio  # noqa: PLC0415 - not for the help alone

    from ultra.service.server import prepare_process, serve  # noqa: PLC0415 - as above

    def announce(url: str) -> None:
        prepare_process()
        write(url)

    async def run() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                if is_worker:
                    nursery.start_soon(_end_with_parent)
                await serve(service, listening, announce=announce, signals=aiter(signals))
                nursery.cancel_scope.cancel()

    failure: list[Exception] = []

    async def guarded() -> None:
        try:
            await run()
        except* Exception as group:  # noqa: BLE001 - raised below, without the nursery's group around it
            failure.append(innermost(group))

    trio.run(guarded)
    if failure:
        raise failure[0]
    return 0


async def _end_with_parent() -> None:
    """Let this process end as by SIGTERM when the one that started it has gone, which holds its stdin."""
    import trio  # noqa: PLC0415 - not for the help alone

    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        while await stdin.receive_some():
            pass
    os.kill(os.getpid(), signal.SIGTERM)


def innermost(error: Exception) -> Exception:
    """Return the first error in a group of groups."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
