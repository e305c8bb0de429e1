"""What was fitted, as ensembles of `ultra.toml` that `ultra ask --ensemble` asks as they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ultra.evals.findings import Findings
    from ultra.evals.fitting import Fitted
    from ultra.evals.panel import PanelModel

__all__ = ["fitted_toml"]


def fitted_toml(
    fitted: Sequence[Fitted],
    findings: Findings,
    models: Mapping[str, PanelModel],
    *,
    source: str,
    judge: str | None = None,
    is_configured: bool = False,
) -> str:
    """Return lines for `ultra.toml`: an ensemble for all that was fitted, and what it is known to gain.

    `is_configured`: a configuration has the models. Then, and where it is not known how they are
    asked, the text is to be added to it; else it is a whole one, with their sections.
    """
    lines = [
        f"# Fitted by 'ultra eval --fit' to {findings.questions} questions of {_plain(source)},",
        f"# graded by {_plain(findings.grader)}.",
    ]
    whole = not is_configured and all(_can_be_asked(model.identity) for model in models.values())
    if whole:
        lines += ["# A whole configuration: ultra ask --config FILE --ensemble NAME"]
    else:
        lines += [f"# Add these lines to the ultra.toml that has the models {', '.join(map(_text, models))}."]
    if judge is not None and not whole:
        lines += [f"# The judge was {_text(judge)}: judge = {_text(judge)} in the section run."]
    elif judge is not None:
        lines += ["", "[run]", f"judge = {_text(judge)}"]
    if whole:
        for name, model in models.items():
            lines += ["", f"[models.{_key(name)}]", f"model = {_text(model.identity)}"]
            lines += [f"weight = {model.weight:g}"] if model.weight != 1 else []
    for each in fitted:
        lines += ["", *_measured(each, findings), f"[ensembles.{_key(each.ensemble)}]"]
        lines += [f"models = {_value(each.arm.models or tuple(models))}"]
        lines += [f"strategy = {_text(each.arm.strategy)}", f"options = {_value(each.arm.options)}"]
    return "\n".join(lines) + "\n"


def _measured(each: Fitted, findings: Findings) -> Iterator[str]:
    """Yield what options that are found in this way gain, as comments."""
    arm = findings.arm(each.name)
    right = f"{arm.accuracy.value:.1%} right"
    yield f"# {_plain(each.name)}: learned on one half and measured on the other, {right}"
    beside = arm.versus_best
    if beside is not None:
        found = beside.difference
        yield (
            f"# ({found.value * 100:+.1f} points over the best member "
            f"[{found.low * 100:+.1f}, {found.high * 100:+.1f}]: {arm.verdict}), {arm.calls:.2f} calls."
        )


def _can_be_asked(identity: str) -> bool:
    """Return whether it is one model of a provider, as ``provider:model``."""
    provider, colon, model = identity.partition(":")
    return bool(provider and colon and model) and ", " not in identity


def _plain(text: str) -> str:
    """Return a text that stays in its line of comments."""
    return " ".join(text.split())


def _key(name: str) -> str:
    bare = name.replace("-", "").replace("_", "")
    return name if bare.isascii() and bare.isalnum() else _text(name)


def _text(value: str) -> str:
    # A basic string of TOML is one of JSON, but for the delete character, which JSON need not escape.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:  # noqa: ANN401 - options of any strategy
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{ " + _joined(f"{_key(name)} = {_value(item)}" for name, item in value.items()) + " }"
    return "[" + _joined(map(_value, value)) + "]"


def _joined(parts: Iterable[str]) -> str:
    return ", ".join(parts)
