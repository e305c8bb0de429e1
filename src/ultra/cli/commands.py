"""The list of commands; the module of each is imported only when it runs."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from ultra.cli.help_text import set_help

__all__ = ["COMMANDS", "COMPLETION_VARIABLE", "Command", "CommandGroup", "new_app"]


COMPLETION_VARIABLE: Final = "_ULTRA_COMPLETE"
"""The variable by which a shell asks for completions."""


class Command(NamedTuple):
    """A command: `module` has its typer app as ``app``; `summary` is its line in ``ultra --help``.

    Its function returns the exit code; None is 0. It may raise `UsageError` (exit code 2) and any other
    `UltraError` (exit code 1); both print one line.
    """

    name: str
    module: str
    summary: str


COMMANDS: Final = (
    Command("ask", "ultra.cli.ask", "Ask several models the same question and merge their answers."),
    Command("chat", "ultra.cli.chat", "Talk with several models, turn by turn."),
    Command("log", "ultra.cli.log", "List, show and search what was asked before."),
    Command("models", "ultra.cli.models", "List the models that can be used here, and why others cannot."),
    Command("strategies", "ultra.cli.strategies", "Explain the strategies: what each costs, when it pays."),
    Command("config", "ultra.cli.config", "Write a configuration, and check one."),
    Command("runs", "ultra.cli.runs", "List, show, follow, cancel and replay runs of the journal."),
    Command("templates", "ultra.cli.templates_command", "List the prompts that are kept, and show one."),
    Command("keys", "ultra.cli.keys", "Keep keys of providers in the system's keyring."),
    Command("serve", "ultra.cli.serve", "Serve ensembles and models to the clients of OpenAI's API."),
    Command("mcp", "ultra.cli.mcp", "Let agents ask ensembles, by the Model Context Protocol."),
    Command("eval", "ultra.cli.eval", "Measure what each strategy gains on your questions."),
    Command("chaos", "ultra.cli.chaos", "Simulate the runtime under faults, and check its guarantees."),
    Command("provider", "ultra.cli.provider", "Serve simulated models, in the protocols of real providers."),
    Command("completion", "ultra.cli.completion_command", "Print the script by which a shell completes."),
)


def new_app() -> typer.Typer:
    """Return the typer app of a command, with the settings that all commands share."""
    # Without rich, help is as readable, and takes half the time.
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


class CommandGroup(TyperGroup):
    """The group of `COMMANDS`: help does not import them, and a call imports one."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - typer's
        super().__init__(**settings)
        for command in COMMANDS:
            summary = TyperCommand(command.name, help=command.summary, short_help=command.summary)
            self.commands[command.name] = summary

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:  # noqa: ANN401 - typer's
        """Return the command that `args` begin with, which is imported."""
        name, _, rest = super().resolve_command(ctx, args)
        module = next(command.module for command in COMMANDS if command.name == name)
        return name, set_help(typer.main.get_command(import_module(module).app)), rest
