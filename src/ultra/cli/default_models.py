"""The models that `ultra ask` asks where neither the user nor a configuration names any."""

from __future__ import annotations

from ultra.cli.output import tell
from ultra.clients.providers import embedded_models, models_with_keys

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
        found = embedded_models()
        told = "no key is set, so a small local model answers, and often errs ('ultra models' lists others)"
    tell(told)
    return found
