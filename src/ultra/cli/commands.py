"""The commands, each in a module of its own that is imported only when it runs."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["COMMANDS", "Command", "CommandGroup", "new_app"]


class Command(NamedTuple):
    """A command: `module` has its typer app as ``app``; `summary` is its line in ``ultra --help``.

    What the command's function returns is the exit code, None for 0. It may raise `UsageError`, which
    ends the program with 2, and any other `UltraError`, which ends it with 1; both print one line.
    """

    name: str
    module: str
    summary: str


COMMANDS: Final = (
    Command("ask", "ultra.cli.ask", "Ask several models the same question and merge their answers."),
    Command("models", "ultra.cli.models", "List the models that can be used here, and why others cannot."),
    Command("config", "ultra.cli.config", "Write a configuration, and check one."),
    Command("chaos", "ultra.cli.chaos", "Simulate the runtime under faults, and check its guarantees."),
    Command("provider", "ultra.cli.provider", "Serve simulated models, in the protocols of real providers."),
)


def new_app() -> typer.Typer:
    """Make the typer app of a command, with the settings that all of them share."""
    # Plain help is as readable as the boxes of rich, and there in half the time.
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


class CommandGroup(TyperGroup):
    """Shows `COMMANDS` in its help without importing them, and imports the one that is called."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - typer's
        super().__init__(**settings)
        for command in COMMANDS:
            summary = TyperCommand(command.name, help=command.summary, short_help=command.summary)
            self.commands[command.name] = summary

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:  # noqa: ANN401 - typer's
        """Find the command that `args` begin with, and import it."""
        name, _, rest = super().resolve_command(ctx, args)
        module = next(command.module for command in COMMANDS if command.name == name)
        return name, typer.main.get_command(import_module(module).app), rest
