"""Several configurations, one on top of another: the user's own, and that of a project.

Models, ensembles and entries of the catalog are joined by their names. One that both files have is that of
the upper file, whole: a key or an endpoint of one file never meets a model of the other. In all other
sections the keys of the upper file stand before those of the lower one. Where the upper file has models, a
run that names none asks these; those of the lower file can be named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ultra.config.loading import read_table
from ultra.config.toml_lines import TomlLines
from ultra.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.config.configuration import Configuration
    from ultra.config.file import ConfigurationFile

__all__ = ["examine_layers", "load_layers"]

_BY_NAME: Final = ("models", "ensembles", "catalog")


def load_layers(
    files: Sequence[ConfigurationFile], *, default_models: Mapping[str, str] | None = None
) -> tuple[Configuration, tuple[str, ...] | None]:
    """Return one configuration of these files, the lowest first, and the models that it asks by default.

    None in place of the models: all. `default_models`: by name, those that there are where no file has any.

    Raises:
        ConfigError: something in a file is not allowed; the message has file, line and key.
    """
    configuration, asked, problems = examine_layers(files, default_models=default_models)
    if problems:
        raise ConfigError("\n".join(problems))
    return configuration, asked


def examine_layers(
    files: Sequence[ConfigurationFile], *, default_models: Mapping[str, str] | None = None
) -> tuple[Configuration, tuple[str, ...] | None, list[str]]:
    """Return what `load_layers` returns of what can be read, and a line for each error."""
    merged: dict[str, Any] = {}
    origins: dict[tuple[str, ...], TomlLines] = {}
    asked: tuple[str, ...] | None = None
    lines = [TomlLines(str(file.path), file.text()) for file in files]
    for number, (file, own) in enumerate(zip(files, lines, strict=True)):
        table = file.table()
        if number and _section(table, "models"):
            asked = tuple(_section(table, "models"))
            # The default ensemble of a lower file is of models that this file does not know.
            if isinstance(merged.get("run"), dict):
                merged["run"].pop("ensemble", None)
        if number and "ensemble" in _section(table, "run"):
            asked = None
        for name, value in table.items():
            origins[(name,)] = own
            if not isinstance(value, dict) or not isinstance(merged.get(name, {}), dict):
                merged[name] = value
                continue
            origins |= dict.fromkeys([(name, key) for key in value], own)
            merged[name] = {**merged.get(name, {}), **value}
    if default_models and not merged.get("models"):
        merged["models"] = {name: {"model": identifier} for name, identifier in default_models.items()}
    configuration, problems = read_table(merged, _LayeredLines(lines[-1].source, origins))
    return configuration, asked, problems


def _section(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = table.get(name)
    return value if isinstance(value, dict) else {}


class _LayeredLines(TomlLines):
    """The lines of several files: a place is in the file that its section, or its key there, came from."""

    def __init__(self, source: str, origins: Mapping[tuple[str, ...], TomlLines]) -> None:
        super().__init__(source, "")
        self._origins = origins

    def place(self, *where: str) -> str:
        own = self._origins.get(where[:2]) or self._origins.get(where[:1])
        return super().place(*where) if own is None else own.place(*where)
