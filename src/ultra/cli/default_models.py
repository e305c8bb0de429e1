"""The models that `ultra ask` asks where neither the user nor a configuration names any."""

from __future__ import annotations

from ultra.cli.arguments import EMBEDDED_MODELS
from ultra.cli.output import tell
from ultra.clients.providers import models_with_keys
from ultra.errors import BadCall, MissingExtra

__all__ = ["choose_models"]


def choose_models() -> tuple[str, ...]:
    """Return a model of each provider whose key is set, or else the embedded ones; say on stderr which.

    Raises:
        BadCall: no key is set, and the embedded model is not installed.
    """
    found = models_with_keys()
    if found:
        told = f"asking the providers whose keys are set: {', '.join(found)}"
    else:
        _check_embedded()
        found = EMBEDDED_MODELS
        told = "no key is set, so a small local model answers, and often errs ('ultra models' lists others)"
    tell(told)
    return found


def _check_embedded() -> None:
    from ultra.clients.local.embedded import find_model  # noqa: PLC0415 - only where no key is set

    try:
        find_model()
    except MissingExtra as missing:
        raise BadCall(
            "no provider's key is set, such as OPENAI_API_KEY ('ultra models' lists them), and there is no "
            f"local model: {missing}"
        ) from None
