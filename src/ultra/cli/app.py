"""The app with all commands, and the exit codes of errors."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from ultra.cli import STDOUT_CLOSED, discard_stdout
from ultra.cli.commands import COMPLETION_VARIABLE, CommandGroup, new_app
from ultra.cli.help_text import set_help
from ultra.cli.output import tell
from ultra.cli.version import version_line
from ultra.errors import BadCall, ConfigError, UltraError, UsageError

__all__ = ["app", "run"]

app = new_app()


@app.callback(cls=CommandGroup, invoke_without_command=True)
def ultra(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Ask several language models the same question and merge their answers.

    It needs no key to start with: ultra ask "..." then asks three voices of a small local model. Where keys
    of providers are set, such as OPENAI_API_KEY, it asks these.
    """
    if version:
        typer.echo(version_line())
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def run(arguments: list[str]) -> int:
    """Run the command of these arguments, and return the exit code; an error is one line on stderr."""
    try:
        _check_text(arguments)
        code = _call(arguments)
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 - a command shows no traceback, whatever the error
        if isinstance(error, typer.TyperException) and "--json" in arguments:
            _write_misuse(error)
        return _explain(error)
    return code


def _explain(error: Exception) -> int:
    """Write one line about the error, and return its exit code."""
    match error:
        case typer.TyperException():
            message, code = _misuse(error), error.exit_code
        case ConfigError():
            for line in str(error).splitlines():
                tell(line)
            return 2
        case UsageError():
            message, code = str(error), 2
        case UltraError():
            message, code = str(error), 1
        case BrokenPipeError():
            discard_stdout()
            return STDOUT_CLOSED
        case OSError():
            discard_stdout()
            message, code = f"the operating system reports: {error}", 1
        case _:
            logging.getLogger("ultra.cli").debug("internal error", exc_info=error)
            kind = type(error).__name__
            message, code = f"internal error, please report it (-vv shows where): {kind}: {error}", 1
    tell(message)
    return code


def _call(arguments: list[str]) -> int:
    """Call the command; not by typer's `main`, which handles signals and broken pipes in its own way."""
    command = set_help(typer.main.get_command(app))
    if instruction := os.environ.get(COMPLETION_VARIABLE):
        from typer._completion_classes import completion_init  # noqa: PLC0415 - only when a key is pressed
        from typer.completion import shell_complete  # noqa: PLC0415 - as above

        completion_init()
        return shell_complete(command, {}, "ultra", COMPLETION_VARIABLE, instruction)
    try:
        with command.make_context("ultra", list(arguments)) as context:
            code = command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return code if isinstance(code, int) else 0


def _check_text(arguments: list[str]) -> None:
    """Raise `BadCall` for bytes that are no UTF-8, which Python passes on as surrogates."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise BadCall(
                f"the argument {argument!r} has bytes that are not text; give it in UTF-8"
            ) from None


def _misuse(error: typer.TyperException) -> str:
    """Return typer's message about wrong options, and where to read about them."""
    context = getattr(error, "ctx", None)
    hint = f" (see: {context.command_path} --help)" if context is not None else ""
    return f"{error.format_message().rstrip('.')}{hint}"


def _write_misuse(error: typer.TyperException) -> None:
    """Write a JSON document about options that no command has got; commands write about other errors."""
    from ultra.cli.json_output import write_document  # noqa: PLC0415 - only these errors need it

    write_document({"error": {"type": "UsageError", "message": _misuse(error)}})
