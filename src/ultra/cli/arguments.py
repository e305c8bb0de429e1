"""The arguments of `ultra ask`, checked as far as this is possible without any model."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast

from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from io import BufferedReader

    from ultra.messages.chat import Part
    from ultra.messages.conversation import Conversation

__all__ = [
    "CONFIGURATION",
    "EMBEDDED_MODELS",
    "ON_CUT",
    "Question",
    "RequestedModel",
    "find_configuration",
    "parse_ensemble",
    "parse_model",
    "parse_models",
    "parse_names",
    "parse_on_cut",
    "parse_quorum",
    "read_parts",
    "read_prompt",
    "read_schema",
]

EMBEDDED_MODELS: Final = ("local:careful", "local:creative", "local:concise")
"""The three voices of the embedded model."""

ON_CUT: Final = ("tell", "continue", "next")
"""What may become of a synthesis that is cut off; those of `Synthesize`, which takes long to import."""

CONFIGURATION: Final = "ultra.toml"
"""The name of the configuration that is used if it is in the working directory."""


@dataclass(frozen=True)
class RequestedModel:
    """One ``--model``; `identifier` is its ``provider:model``."""

    identifier: str
    weight: float = 1.0

    @property
    def short_name(self) -> str:
        """The name without the provider."""
        return self.identifier.partition(":")[2]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question with its images and documents, and how to ask it; None: as the orchestrator does.

    With a `configuration`, its models are asked; `found`: it was found, and not named by the user.
    """

    prompt: str
    parts: tuple[Part, ...] = ()
    models: tuple[RequestedModel, ...] = ()
    configuration: Path | None = None
    found: bool = False
    chosen: tuple[str, ...] | None = None
    strategy: str | None = None
    stages: tuple[str, ...] | None = None
    system: str | None = None
    timeout: float | None = None
    quorum: int | Literal["all"] | None = None
    on_cut: str | None = None
    schema: dict[str, object] | None = None
    ensemble: str | None = None

    @property
    def conversation(self) -> Conversation:
        """The question as the orchestrator takes it."""
        if not self.parts:
            return self.prompt
        from ultra.messages.chat import ChatMessage, TextPart  # noqa: PLC0415 - not for the help alone

        return [ChatMessage("user", (TextPart(self.prompt), *self.parts))]

    @property
    def is_to_embedded(self) -> bool:
        """Whether all models are voices of the embedded one."""
        return bool(self.models) and all(model.identifier.startswith("local:") for model in self.models)

    def names(self) -> dict[str, RequestedModel]:
        """Return the models by the names that are shown: without the provider, if that is unique."""
        times = Counter(model.short_name for model in self.models)
        return {
            model.short_name if times[model.short_name] == 1 else model.identifier: model
            for model in self.models
        }

    def chosen_names(self) -> list[str] | None:
        """Return the names of the models in ``--models``, given by name or as ``provider:model``."""
        if self.chosen is None:
            return None
        by_identifier = {model.identifier: name for name, model in self.names().items()}
        return [by_identifier.get(name, name) for name in self.chosen]


def read_parts(images: Sequence[str] | None, files: Sequence[str] | None) -> tuple[Part, ...]:
    """Return the images and the documents at these paths or addresses. Raises `BadCall`."""
    from ultra.messages.chat import FilePart, ImagePart  # noqa: PLC0415 - not for the help alone

    return (*map(ImagePart.of, images or ()), *map(FilePart.of, files or ()))


def find_configuration(given: Path | None, models: Sequence[str] | None) -> Path | None:
    """Return the file that has the models: the given one, or ``ultra.toml`` in the working directory.

    None, if ``--model`` names the models, or there is no such file. Raise `BadCall` if both are given.
    """
    if given is not None and models:
        raise BadCall(f"--config {given} and --model both say which models to ask; give one of them")
    if given is not None or models:
        return given
    path = Path(CONFIGURATION)
    return path if path.is_file() else None


def parse_model(text: str) -> RequestedModel:
    """Return the model of ``provider:model[@weight]``. The weight follows the last ``@``.

    Raises:
        BadCall: there is no provider, no model, or the weight is no number.
    """
    identifier, _, number = text.rpartition("@") if "@" in text else (text, "", "1")
    try:
        weight = float(number)
    except ValueError:
        raise BadCall(
            f"the weight {number!r} in --model {text!r} is no number; give provider:model@2, "
            f"and where '@' belongs to the model's name, the weight after it: {text}@1"
        ) from None
    provider, colon, model = identifier.partition(":")
    if not (provider and colon and model):
        raise BadCall(
            f"--model {text!r} is not provider:model[@weight], such as local:careful or local:careful@2"
        )
    return RequestedModel(identifier, weight)


def parse_models(texts: Iterable[str]) -> tuple[RequestedModel, ...]:
    """Return the models of all ``--model``.

    Raises:
        BadCall: as `parse_model`, or a model is named twice.
    """
    models = tuple(parse_model(text) for text in texts)
    for identifier, times in Counter(model.identifier for model in models).items():
        if times > 1:
            raise BadCall(f"--model {identifier!r} is given {times} times; give each model once")
    return models


def parse_names(texts: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the names in an option that has names between commas, and may be repeated."""
    if not texts:
        return None
    return tuple(name.strip() for text in texts for name in text.split(",") if name.strip())


def parse_quorum(text: str | None) -> int | Literal["all"] | None:
    """Return the quorum of ``--quorum``; raise `BadCall` if it is neither a number nor ``all``."""
    if text is None:
        return None
    if text == "all":
        return "all"
    try:
        return int(text)
    except ValueError:
        raise BadCall(f"--quorum is {text!r}; give a number of models, or all") from None


def parse_ensemble(name: str | None, configuration: Path | None) -> str | None:
    """Return the ensemble of ``--ensemble``; raise `BadCall` where no configuration could have it."""
    if name is not None and configuration is None:
        raise BadCall(
            f"--ensemble {name!r}: ensembles stand in a configuration, as [ensembles.{name}]; "
            f"give it as --config, or ask where {CONFIGURATION} is"
        )
    return name


def parse_on_cut(text: str | None) -> str | None:
    """Return the choice of ``--on-cut``; raise `BadCall` if there is none of that name."""
    if text is None or text in ON_CUT:
        return text
    raise BadCall(f"--on-cut is {text!r}; give one of: {', '.join(ON_CUT)}")


def read_prompt(text: str) -> str:
    """Return the prompt: `text`, or the text of stdin for ``-``.

    Raises:
        BadCall: it is empty, or stdin is no UTF-8 text.
    """
    if text == "-":
        text = _read_stdin()
    if not text.strip():
        raise BadCall('the prompt is empty; give a question: ultra ask "...", or - to read it from stdin')
    return text


def read_schema(path: Path | None) -> dict[str, object] | None:
    """Return the JSON schema in a file; None for None.

    Raises:
        BadCall: it cannot be read, or has no object of JSON.
    """
    if path is None:
        return None
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadCall(f"--schema {path}: {error}") from None
    if not isinstance(found, dict):
        raise BadCall(f"--schema {path}: it must have the JSON schema of the answer, an object of JSON")
    return found


def _read_stdin() -> str:
    if sys.stdin is None:
        raise BadCall("the prompt is to be read from stdin, which is closed")
    # In pieces: Python handles Ctrl-C between two reads, and not within one.
    stdin = cast("BufferedReader", sys.stdin.buffer)
    pieces = iter(partial(stdin.read1, 1 << 16), b"")
    try:
        return b"".join(pieces).decode("utf-8-sig")  # some shells write a byte order mark
    except UnicodeDecodeError as error:
        raise BadCall(f"what stdin has is not UTF-8 text: {error.reason} at byte {error.start}") from None
