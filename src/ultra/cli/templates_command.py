"""`ultra templates`: list the templates, and show one."""

from __future__ import annotations

from typing import Annotated

import typer

from ultra.cli.commands import new_app
from ultra.cli.completion import complete_templates
from ultra.cli.output import tell, write
from ultra.cli.printable_text import one_line

__all__ = ["app"]

app = new_app()


@app.callback()
def templates() -> None:
    """List the prompts that are kept as templates, and show one. Use one by: ultra ask --template NAME.

    A template is a file NAME.toml in .ultra/templates here, or in the folder templates beside your own
    configuration (ultra config path). It has prompt, and may have system, description, ensemble, strategy,
    temperature, max_tokens, and [defaults] for its {{placeholders}}. {{input}} is the question.
    """


@app.command("list")
def list_templates(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print the list as one JSON document.")] = False
) -> None:
    """List the templates that there are, yours and those of the project here."""
    from ultra.cli.json_output import write_document  # noqa: PLC0415 - not for the help alone
    from ultra.cli.templates import find_templates, load_template  # noqa: PLC0415 - as above
    from ultra.cli.user_paths import config_folder  # noqa: PLC0415 - as above
    from ultra.errors import UltraError  # noqa: PLC0415 - as above

    rows = []
    for found in find_templates().values():
        try:
            told, problem = load_template(found.name).description, None
        except UltraError as error:
            told, problem = "", str(error)
        rows.append({"name": found.name, "owner": found.owner, "path": found.path, "description": told})
        if problem is not None:
            rows[-1]["problem"] = problem
    if as_json:
        write_document(rows)
        return
    if not rows:
        tell(f"there are no templates; write one to {config_folder() / 'templates'}, as NAME.toml")
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        told = row["description"] or row.get("problem", "")
        write(f"{row['name'].ljust(width)}  {row['owner']:7}  {one_line(told)}".rstrip())


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Its name, or its file.", autocompletion=complete_templates)],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as one JSON document.")] = False,
) -> None:
    """Show a template: its prompts, its placeholders, and how it is asked."""
    from ultra.cli.json_output import write_document  # noqa: PLC0415 - not for the help alone
    from ultra.cli.templates import load_template  # noqa: PLC0415 - as above

    template = load_template(name)
    if as_json:
        write_document(template)
        return
    settings = ("description", "ensemble", "strategy", "temperature", "max_tokens")
    for key in settings:
        if (value := getattr(template, key)) not in {None, ""}:
            write(one_line(f"{key}: {value}"))
    for placeholder in template.placeholders:
        default = template.defaults.get(placeholder)
        told = "no default, give --param" if default is None else f"default {default!r}"
        write(one_line(f"placeholder {placeholder}: {told}"))
    for key in ("system", "prompt"):
        if text := getattr(template, key):
            write("", f"--- {key}", text.strip("\n"))
