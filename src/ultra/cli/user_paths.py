"""Where the user's own files of Ultra are, as the platform has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["config_folder", "data_folder", "state_folder"]

_NAME: Final = "ultra"


def config_folder() -> Path:
    """Return the folder of the user's configuration: on Linux ``$XDG_CONFIG_HOME/ultra``."""
    import platformdirs  # noqa: PLC0415 - not for the help alone

    return platformdirs.user_config_path(_NAME, appauthor=False)


def data_folder() -> Path:
    """Return the folder of what the command keeps: on Linux ``$XDG_DATA_HOME/ultra``."""
    import platformdirs  # noqa: PLC0415 - not for the help alone

    return platformdirs.user_data_path(_NAME, appauthor=False)


def state_folder() -> Path:
    """Return the folder of what the command remembers: on Linux ``$XDG_STATE_HOME/ultra``."""
    import platformdirs  # noqa: PLC0415 - not for the help alone

    return platformdirs.user_state_path(_NAME, appauthor=False)
