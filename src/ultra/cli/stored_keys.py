"""Keys of providers in the system's keyring (extra ``keyring``): macOS, Windows, and Secret Service on Linux.

Which providers have one stands in a file of the state folder, names only, so that a command asks the keyring
for nothing else, and not at all where none is kept.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from ultra.cli.output import tell
from ultra.cli.user_paths import state_folder
from ultra.clients.options import checked_key
from ultra.clients.providers import find_provider, key_variable
from ultra.errors import BadCall, ConfigError, MissingExtra, UltraError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["delete_key", "key_names", "store_key", "use_stored_keys"]

_SERVICE: Final = "ultra"


def use_stored_keys() -> frozenset[str]:
    """Put each key that is kept, and that the environment does not have, into this process's environment.

    Returns the names of the providers whose keys these are. A keyring that cannot be read is told of on
    stderr, and the command goes on without it.
    """
    used = set()
    for provider in key_names():
        try:
            if key_variable(provider) is not None:
                continue
            variable = _variable(provider)
            key = _keyring().get_password(_SERVICE, provider)
            if key:
                os.environ[variable] = checked_key(provider, key)
                used.add(provider)
        except UltraError as error:
            tell(f"the key of {provider} is not used: {error}")
        except Exception as error:  # noqa: BLE001 - whatever a backend raises: a locked keyring, no bus
            tell(f"the key of {provider} cannot be read from the keyring: {type(error).__name__}")
    return frozenset(used)


def store_key(provider: str, key: str) -> None:
    """Keep the key of a provider. Raises `BadCall`, `ConfigError` or `MissingExtra`."""
    variable = _variable(provider)
    key = checked_key(provider, key)
    if not key:
        raise BadCall(f"the key of {provider} is empty")
    keyring = _keyring()
    try:
        keyring.set_password(_SERVICE, provider, key)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises
        raise ConfigError(_refused(error, variable)) from None
    _write_names({*key_names(), provider})


def delete_key(provider: str) -> None:
    """Keep the key of a provider no more. Raises as `store_key`."""
    if provider not in key_names():
        raise BadCall(f"no key of {provider!r} is kept; there are: {', '.join(key_names()) or 'none'}")
    keyring = _keyring()
    try:
        if keyring.get_password(_SERVICE, provider) is not None:
            keyring.delete_password(_SERVICE, provider)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises
        raise ConfigError(_refused(error, None)) from None
    _write_names({*key_names()} - {provider})


def key_names() -> list[str]:
    """Return the providers whose keys are kept."""
    try:
        found = json.loads(_file().read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _variable(provider: str) -> str:
    known = find_provider(provider)
    variables = [name for name in known.keys if name not in known.tokens]
    if not variables:
        raise BadCall(f"{provider} takes no key")
    return variables[0]


def _keyring() -> Any:  # noqa: ANN401 - the module, which may not be installed
    try:
        import keyring  # noqa: PLC0415 - an extra
        from keyring.backends import fail, null  # noqa: PLC0415 - as above
    except ImportError:
        raise MissingExtra("the system's keyring", "keyring") from None
    if isinstance(keyring.get_keyring(), (fail.Keyring, null.Keyring)):
        raise ConfigError(
            "this system has no keyring that can be used, as is usual on servers and in containers; "
            "give the key by the environment, such as OPENAI_API_KEY, or ${VARIABLE} in ultra.toml"
        )
    return keyring


def _refused(error: Exception, variable: str | None) -> str:
    # The text of the error is left out: it is not ours, and may have what was to be kept.
    instead = "" if variable is None else f"; set {variable} instead"
    return f"the keyring refuses: {type(error).__name__}{instead}"


def _file() -> Path:
    return state_folder() / "keys.json"


def _write_names(names: set[str]) -> None:
    try:
        _file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = _file().with_suffix(".new")
        new.write_text(json.dumps(sorted(names)), "utf-8")
        new.replace(_file())
    except OSError as error:
        raise ConfigError(f"{_file()}: it cannot be written: {error}") from None
