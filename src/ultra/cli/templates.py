"""Templates: prompts that are kept in files, with placeholders.

A template is a TOML file, `NAME.toml`, in the project's folder `.ultra/templates` or in the user's folder
`templates` beside the configuration::

    description = "Review a change"
    system = "You are a careful reviewer of {{language}}."
    prompt = \"\"\"
    List what is wrong with this change, the worst first.

    {{input}}\"\"\"
    ensemble = "council"

    [defaults]
    language = "Python"

``{{input}}`` is the question with what is piped in; without it, these follow the prompt.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from ultra.cli.user_paths import config_folder
from ultra.config.file import ConfigurationFile
from ultra.config.toml_lines import TomlLines
from ultra.config.trust import check_trust, is_users_alone
from ultra.errors import BadCall, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["INPUT", "Template", "TemplateFile", "find_templates", "load_template"]

INPUT: Final = "input"
_PROJECT: Final = Path(".ultra") / "templates"
_PLACEHOLDER: Final = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Template(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A prompt, and how it is asked; `defaults` are the values of placeholders that are not given."""

    prompt: str = ""
    system: str | None = None
    description: str = ""
    ensemble: str | None = None
    strategy: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    defaults: dict[str, str] = {}

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The names in it, each once, without the input."""
        found = _PLACEHOLDER.findall(f"{self.system or ''}\n{self.prompt}")
        return tuple(name for name in dict.fromkeys(found) if name != INPUT)

    @property
    def wants_input(self) -> bool:
        """Whether it has a place for the question."""
        return INPUT in _PLACEHOLDER.findall(self.prompt)

    def filled(self, given: Mapping[str, str], text: str) -> tuple[str, str | None]:
        """Return the prompt and the system prompt, with these values; values are not filled in turn.

        Raises:
            BadCall: a value is missing, or has no place.
        """
        values = {**self.defaults, **given}
        missing = [name for name in self.placeholders if name not in values]
        if missing:
            names = ", ".join(missing)
            raise BadCall(f"the template needs a value for {names}; give it as --param {missing[0]}=…")
        unknown = [name for name in given if name not in self.placeholders]
        if unknown:
            choices = ", ".join(self.placeholders) or "none"
            raise BadCall(f"the template has no place for {unknown[0]!r}; its placeholders are: {choices}")
        values[INPUT] = text
        prompt = _PLACEHOLDER.sub(lambda match: values[match[1]], self.prompt)
        if not self.wants_input and text.strip():
            prompt = f"{prompt.rstrip()}\n\n{text}" if prompt.strip() else text
        if not prompt.strip():
            raise BadCall("the template has no prompt of its own; give a question, or pipe text in")
        system = self.system
        return prompt, None if system is None else _PLACEHOLDER.sub(lambda match: values[match[1]], system)


class TemplateFile(Struct, frozen=True, kw_only=True):
    """A template that was found: its name, its file, and whether it is the user's or the project's."""

    name: str
    path: str
    owner: str


def find_templates() -> dict[str, TemplateFile]:
    """Return the templates by name; one of the project hides the user's of the same name."""
    found: dict[str, TemplateFile] = {}
    for folder, owner in ((config_folder() / "templates", "user"), (_PROJECT, "project")):
        try:
            paths = sorted(folder.glob("*.toml"))
        except OSError:
            continue
        for path in paths:
            if _NAME.fullmatch(path.stem):
                found[path.stem] = TemplateFile(name=path.stem, path=str(path), owner=owner)
    return found


def load_template(name: str) -> Template:
    """Return the template of this name, or in the file of this path, which has a ``/`` or ends in ``.toml``.

    Raises:
        BadCall: there is none of that name.
        ConfigError: something in it is not allowed; or it is the project's, and the user does not trust it.
    """
    if "/" in name or "\\" in name or name.endswith(".toml"):
        return _read(ConfigurationFile.read(name))
    templates = find_templates()
    found = templates.get(name)
    if found is None:
        choices = (
            ", ".join(templates) or f"none; write one to {config_folder() / 'templates' / f'{name}.toml'}"
        )
        raise BadCall(f"there is no template {name!r}; there are: {choices}")
    file = ConfigurationFile.read(found.path)
    if found.owner == "project" or not is_users_alone(file.path):
        check_trust(file, f"name it: --template ./{found.path}")
    return _read(file)


def _read(file: ConfigurationFile) -> Template:
    table: dict[str, Any] = file.table()
    lines = TomlLines(str(file.path), file.text())
    unknown = [name for name in table if name not in Template.__struct_fields__]
    if unknown:
        choices = ", ".join(Template.__struct_fields__)
        raise ConfigError(f"{lines.place(unknown[0])}: unknown key; allowed are: {choices}")
    try:
        template = msgspec.convert(table, Template)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        where = tuple(re.findall(r"\w+", path)) or ("prompt",)
        raise ConfigError(f"{lines.place(*where)}: {message}") from None
    if template.strategy is not None and ":" in template.strategy:
        raise ConfigError(f"{lines.place('strategy')}: a template names no code; give the name of a strategy")
    return template
