"""`ultra serve`: the service, in this process or in several."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from ultra._support.collector import collector_off
from ultra.cli.commands import new_app
from ultra.cli.first_error import raising_first
from ultra.cli.options import LogJson, Verbose  # noqa: TC001 - typer reads them
from ultra.cli.output import tell, write
from ultra.cli.signals import SERVICE_SIGNALS

if TYPE_CHECKING:
    from ultra.config.keys import KeyConfig
    from ultra.config.loading import Configuration
    from ultra.service.core import Service
    from ultra.service.reloading import Reloader

__all__ = ["app", "configuration_of"]

app = new_app()
keys = new_app()
app.add_typer(keys, name="key", help="Make keys of clients, which the service then asks for.")


@keys.callback()
def _keys() -> None:
    """Make keys of clients, which the service then asks for."""


@app.callback(
    invoke_without_command=True,
    epilog="Exit code: 0 after SIGTERM or Ctrl-C, once it has drained; 1 failed, 2 bad usage.",
)
def serve(
    context: typer.Context,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A configuration with models, ensembles and settings.  [default: ULTRA_CONFIG, or "
            "ultra.toml, if it is here, on top of your own (ultra config path)]",
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
    log_json: LogJson = False,
    verbose: Verbose = 0,
) -> int:
    """Serve ensembles and models to the clients of OpenAI's API.

    Prints its address as the first line. Without a configuration it offers a model of each provider whose key
    is set, or else the voices of the local model, and an ensemble of them all, which is called ultra:

    curl http://127.0.0.1:8080/v1/chat/completions -H 'content-type: application/json'
    -d '{"model": "ultra", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'

    SIGTERM and Ctrl-C let it drain: what was asked before is answered, and a second signal ends that. SIGHUP
    lets it read its configuration again.

    Runs in the background, stored responses and batches are kept in memory for a day, or where [journal] of
    the configuration says; then they go on at the next start.
    """
    if context.invoked_subcommand is not None:
        return 0
    with collector_off():  # hundreds of modules are imported here, and nearly all of it is kept
        from ultra.cli.logs import configure_logs  # noqa: PLC0415 - not for the help alone
        from ultra.config.serving import ServeConfig  # noqa: PLC0415 - as above
        from ultra.service.access import access_of  # noqa: PLC0415 - as above
        from ultra.service.reloading import Reloader  # noqa: PLC0415 - as above
        from ultra.service.server import check_address, listen  # noqa: PLC0415 - as above
        from ultra.service.setup import make_service  # noqa: PLC0415 - as above

        configure_logs(verbose, as_json=log_json)
        source = configuration_of(config)
        check_address(access_of(ServeConfig() if source is None else source.serve), host)
        listening = listen(host, port) if fd is None else socket.socket(fileno=fd)
        service = make_service(source, is_one_of_several=workers > 1 or fd is not None)
    reloader = Reloader(service, lambda: configuration_of(config), host=host, tell=tell)
    if fd is not None:
        return _serve(service, listening, reloader, is_worker=True)
    _tell_of_memory(service)
    if workers > 1:
        from ultra.cli.workers import run_workers  # noqa: PLC0415 - only for several

        _tell_of_sharing(source)
        arguments = ["serve", *(("--config", str(config)) if config else ()), "--host", host]
        arguments += ["--log-json"] * log_json + ["-v"] * verbose
        return run_workers(arguments, listening, workers)
    return _serve(service, listening, reloader)


@keys.command("new", epilog="Exit code: 0 done.")
def new_key(
    *,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Whose key it is; it keeps runs, answers and limits apart.")
    ] = "client",
) -> int:
    """Make a key for a client. It is shown this once; the configuration gets its hash.

    The key has 256 random bits, which nobody finds by trying, so the hash is a fast one (SHA-256).
    """
    from ultra.config.keys import KeyConfig, hash_of  # noqa: PLC0415 - not for the help alone
    from ultra.config.keys import new_key as make_key  # noqa: PLC0415 - as above

    key = make_key()
    config = KeyConfig(name=name, hash=hash_of(key))
    write(
        "# The key. It is shown this once; give it to the client:",
        key,
        "",
        "# For the configuration:",
        "[[serve.keys]]",
        f'name = "{config.name}"',
        f'hash = "{config.hash}"',
        '# models = ["ultra"]            # what it may ask for; left out: all',
        "# requests_per_minute = 60      # and tokens_per_minute, concurrency",
        "# dollars_per_day = 5.0         # and dollars_per_month",
    )
    return 0


def configuration_of(given: Path | None) -> Configuration | None:
    """Return the configuration of this path; of none, that which is found; None: there is none.

    Keys in the system's keyring are used as for `ultra ask`.
    """
    from ultra.cli.served_configuration import load_served  # noqa: PLC0415 - not for the help alone
    from ultra.cli.stored_keys import use_stored_keys  # noqa: PLC0415 - as above

    use_stored_keys()
    return load_served(given)


def _tell_of_memory(service: Service) -> None:
    """Say what is lost at the end of the process, where somebody may rely on it."""
    if any(_has_budget(key) for key in service.settings.keys) and service.settings.budgets == "memory":
        tell(
            "budgets of keys are kept in memory: at each start they begin at 0; "
            'set budgets = "sqlite:///limits.db" in [serve]'
        )


def _has_budget(key: KeyConfig) -> bool:
    return key.dollars_per_day is not None or key.dollars_per_month is not None


def _tell_of_sharing(configuration: Configuration | None) -> None:
    """Say what each of several processes has for itself."""
    cache = configuration.cache if configuration is not None else None
    shared = cache is not None and cache.enabled and cache.store != "memory"
    own = "Each keeps answers of its own (set a store in [cache])"
    answers = "They share kept answers" if shared else own
    serve = configuration.serve if configuration is not None else None
    if serve is not None and serve.keys and serve.budgets != "memory":
        answers += ", and they share the rates and budgets of keys"
    elif serve is not None and serve.keys:
        answers += ". Each counts rates and budgets of keys by itself (set budgets in [serve])"
    if configuration is None or configuration.journal.store in {None, "memory"}:
        answers += ". No runs are kept, since each would know its own only (set store in [journal])"
    limits = configuration is not None and configuration.shared.store is not None
    alone = "metrics and joined requests" if limits else "limits of models, metrics and joined requests"
    hint = "" if limits else " (set a store in [shared] to share the limits)"
    tell(f"{alone} are of each process by itself{hint}. {answers}")


def _serve(service: Service, listening: socket.socket, reloader: Reloader, *, is_worker: bool = False) -> int:
    import trio  # noqa: PLC0415 - not for the help alone

    from ultra.service.server import prepare_process, serve  # noqa: PLC0415 - as above

    def announce(url: str) -> None:
        prepare_process()
        write(url)

    async def run() -> None:
        with trio.open_signal_receiver(*SERVICE_SIGNALS) as signals:
            async with trio.open_nursery() as nursery:
                if is_worker:
                    nursery.start_soon(_end_with_parent)
                await serve(
                    service,
                    listening,
                    announce=announce,
                    signals=aiter(signals),
                    reload=reloader.reload,
                )
                nursery.cancel_scope.cancel()

    trio.run(raising_first, run)
    return 0


async def _end_with_parent() -> None:
    """Let this process end as by SIGTERM when the one that started it has gone, which holds its stdin."""
    import trio  # noqa: PLC0415 - not for the help alone

    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        while await stdin.receive_some():
            pass
    os.kill(os.getpid(), signal.SIGTERM)
