"""The configurations of a command: the one that was named, or the project's on top of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ultra.cli.user_paths import config_folder
from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.config.configuration import Configuration
    from ultra.config.file import ConfigurationFile

__all__ = ["CONFIGURATION", "Source", "find_sources", "load_sources", "own_configuration", "read_sources"]

CONFIGURATION: Final = "ultra.toml"
"""The name of the configuration that is used if it is in the working directory."""


@dataclass(frozen=True)
class Source:
    """A configuration, and how it was come by."""

    path: Path
    kind: Literal["named", "project", "user"]


def own_configuration() -> Path:
    """Return the path of the user's own configuration, whether or not it is there."""
    return config_folder() / CONFIGURATION


def find_sources(given: Path | None, models: Sequence[str] | None = None) -> tuple[Source, ...]:
    """Return the configurations, the lowest first: the `given` one alone, or the user's and the project's.

    None, if ``--model`` names the models. Raises `BadCall` if both are given.
    """
    if given is not None and models:
        raise BadCall(f"--config {given} and --model both say which models to ask; give one of them")
    if models:
        return ()
    if given is not None:
        return (Source(given, "named"),)
    own, here = Source(own_configuration(), "user"), Source(Path(CONFIGURATION), "project")
    found = [source for source in (own, here) if source.path.is_file()]
    if len(found) > 1 and own.path.resolve() == here.path.resolve():
        return (own,)
    return tuple(found)


def read_sources(sources: Sequence[Source], how_to_name: str = "") -> list[ConfigurationFile]:
    """Read the files. Raises `ConfigError`: one that nobody named is not trusted, or cannot be read."""
    from ultra.config.file import ConfigurationFile  # noqa: PLC0415 - not for the help alone
    from ultra.config.trust import check_trust, is_users_alone  # noqa: PLC0415 - as above

    files = []
    for source in sources:
        file = ConfigurationFile.read(source.path)
        if source.kind == "project" or (source.kind == "user" and not is_users_alone(source.path)):
            check_trust(file, how_to_name or f"pass --config {source.path}")
        files.append(file)
    return files


def load_sources(
    sources: Sequence[Source], how_to_name: str = "", *, with_provider: bool = False
) -> tuple[Configuration, tuple[str, ...] | None]:
    """Return one configuration of these files, and the models that it asks by default (None: all).

    The user's own file need not have models: then they are those that can be used here, named as their
    providers name them; `with_provider`: as ``provider/model``.

    Raises:
        ConfigError: something in a file is not allowed, or a file is not trusted.
        BadCall: there are no models.
    """
    from ultra.cli.default_models import choose_models  # noqa: PLC0415 - not for the help alone
    from ultra.config.layers import load_layers  # noqa: PLC0415 - as above

    files = read_sources(sources, how_to_name)
    default: dict[str, str] = {}
    if all(source.kind == "user" for source in sources) and not any(
        file.table().get("models") for file in files
    ):
        for identifier in choose_models():
            name = identifier.replace(":", "/", 1) if with_provider else identifier.partition(":")[2]
            default[name] = identifier
    return load_layers(files, default_models=default)
