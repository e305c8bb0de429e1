"""The arguments of `ultra ask`, checked as far as this is possible without any model."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from ultra.cli.sources import CONFIGURATION
from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from ultra.cli.sources import Source
    from ultra.messages.chat import ChatMessage, Part
    from ultra.messages.conversation import Conversation

__all__ = [
    "EMBEDDED_MODELS",
    "ON_CUT",
    "SHOWN",
    "Question",
    "RequestedModel",
    "asking_to_show",
    "check_ensemble",
    "check_sampling",
    "parse_model",
    "parse_models",
    "parse_names",
    "parse_on_cut",
    "parse_pairs",
    "parse_quorum",
    "parse_shown",
    "read_parts",
    "read_schema",
    "split_by_model",
]

EMBEDDED_MODELS: Final = ("local:careful", "local:creative", "local:concise")
"""The three voices of the embedded model."""

ON_CUT: Final = ("tell", "continue", "next")
"""What may become of a synthesis that is cut off; those of `Synthesize`, which takes long to import."""

SHOWN: Final = ("analysis", "reasoning")
"""What `--show` shows: the keys of `ultra.cli.report.HIDDEN`, which takes long to import, and `REASONING`."""


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

    With `sources`, their models are asked. `sampling` are options of how models write, `per_model` those of
    single models in place of them, `strategy_options` those of the strategy. `earlier` is what was said
    before; without a prompt, its last message is the question. `is_kept`: whether the run goes into the
    history, as one of the conversation `conversation_id`.
    """

    prompt: str = ""
    parts: tuple[Part, ...] = ()
    models: tuple[RequestedModel, ...] = ()
    sources: tuple[Source, ...] = ()
    chosen: tuple[str, ...] | None = None
    strategy: str | None = None
    strategy_options: Mapping[str, object] = field(default_factory=dict)
    stages: tuple[str, ...] | None = None
    system: str | None = None
    timeout: float | None = None
    quorum: int | Literal["all"] | None = None
    samples: int | None = None
    judge: str | None = None
    schema: dict[str, object] | None = None
    ensemble: str | None = None
    sampling: Mapping[str, object] = field(default_factory=dict)
    per_model: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    use_cache: bool = True
    earlier: tuple[ChatMessage, ...] = ()
    is_kept: bool = True
    conversation_id: str | None = None

    @property
    def conversation(self) -> Conversation:
        """The question as the orchestrator takes it."""
        if not self.parts and not self.earlier:
            return self.prompt
        from ultra.messages.chat import ChatMessage, TextPart  # noqa: PLC0415 - not for the help alone

        if self.earlier and not (self.prompt or self.parts):
            return list(self.earlier)
        content = (TextPart(self.prompt), *self.parts) if self.parts else self.prompt
        return [*self.earlier, ChatMessage("user", content)]

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

    def named(self, name: str) -> str:
        """Return the name of a model that is given by name or as ``provider:model``."""
        by_identifier = {model.identifier: short for short, model in self.names().items()}
        return by_identifier.get(name, name)

    def chosen_names(self) -> list[str] | None:
        """Return the names of the models in ``--models``, given by name or as ``provider:model``."""
        return None if self.chosen is None else [self.named(name) for name in self.chosen]


def read_parts(images: Sequence[str] | None, files: Sequence[str] | None) -> tuple[Part, ...]:
    """Return the images and the documents at these paths or addresses. Raises `BadCall`."""
    from ultra.messages.chat import FilePart, ImagePart  # noqa: PLC0415 - not for the help alone

    return (*map(ImagePart.of, images or ()), *map(FilePart.of, files or ()))


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
        hint = "" if colon else _with_provider(identifier)
        raise BadCall(
            f"--model {text!r} is not provider:model[@weight], such as local:careful or local:careful@2{hint}"
        )
    return RequestedModel(identifier, weight)


def _with_provider(model: str) -> str:
    """Return the end of a sentence that asks for the same model of a provider; empty if none is known."""
    from ultra.clients.catalog import PROVIDERS  # noqa: PLC0415 - only for a mistake
    from ultra.clients.catalog.models import known_models  # noqa: PLC0415 - as above

    found = [name for name in known_models() if name.partition(":")[2] == model]
    if not found and model in PROVIDERS and PROVIDERS[model].example:
        found = [PROVIDERS[model].example]
    return f"; did you mean {' or '.join(map(repr, found[:3]))}?" if found else ""


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


def check_ensemble(name: str | None, sources: Sequence[Source]) -> str | None:
    """Return the ensemble of ``--ensemble``; raise `BadCall` where no configuration could have it."""
    if name is not None and not sources:
        raise BadCall(
            f"--ensemble {name!r}: ensembles stand in a configuration, as [ensembles.{name}]; "
            f"give it as --config, ask where {CONFIGURATION} is, or write one for yourself "
            "(ultra config init --user)"
        )
    return name


def parse_on_cut(text: str | None) -> str | None:
    """Return the choice of ``--on-cut``; raise `BadCall` if there is none of that name."""
    if text is None or text in ON_CUT:
        return text
    raise BadCall(f"--on-cut is {text!r}; give one of: {', '.join(ON_CUT)}")


def parse_pairs(option: str, texts: Sequence[str] | None, *, as_text: bool = False) -> dict[str, object]:
    """Return the values of an option ``name=value`` that may be repeated; a value is JSON, or else text.

    `as_text`: it is text in any case.

    Raises:
        BadCall: one has no name, or a name is given twice.
    """
    found: dict[str, object] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        name = name.strip()
        if not (equals and name):
            if option == "--option" and name.endswith(".") and name != ".":  # so a shell completes it
                raise BadCall(_names_no_option(name))
            raise BadCall(f"{option} {text!r} is not name=value, such as {option} top_p=0.9")
        if name in found:
            raise BadCall(f"{option} gives {name!r} twice; give it once")
        try:
            found[name] = value if as_text else json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
    return found


def split_by_model(
    options: Mapping[str, object],
) -> tuple[dict[str, object], dict[str, dict[str, object]]]:
    """Return the options for all models, and those of single ones, given as ``MODEL.NAME``, by model.

    The name of the option follows the last dot, since names of models have dots, too.
    """
    for_all: dict[str, object] = {}
    own: dict[str, dict[str, object]] = {}
    for given, value in options.items():
        model, dot, name = given.rpartition(".")
        if not dot:
            for_all[name] = value
        elif model and name:
            own.setdefault(model, {})[name] = value
        elif model:
            raise BadCall(_names_no_option(given))
        else:
            wanted = name or "NAME"
            raise BadCall(
                f"--option {given!r}: no model stands before the dot; "
                f"give {wanted}=VALUE, or MODEL.{wanted}=VALUE for one model alone"
            )
    return for_all, own


def _names_no_option(given: str) -> str:
    model = given[:-1]
    return (
        f"--option {given!r} names the model {model!r} and none of its options; "
        f"give one behind the dot, such as {model}.top_p=0.9"
    )


def check_sampling(options: Mapping[str, object]) -> Mapping[str, object]:
    """Return the options of how models write. Raises `BadCall`."""
    from ultra.messages.request import SamplingOptions  # noqa: PLC0415 - not for the help alone

    names = SamplingOptions.__struct_fields__
    given: dict[str, Any] = {name: value for name, value in options.items() if name in names}
    SamplingOptions(**given)  # which checks the values
    return options


def parse_shown(texts: Sequence[str] | None) -> tuple[str, ...]:
    """Return the words of ``--show``. Raises `BadCall` for one that there is not."""
    names = parse_names(texts) or ()
    for name in names:
        if name not in SHOWN:
            raise BadCall(f"--show is {name!r}; give one of: {', '.join(SHOWN)}")
    return names


def asking_to_show(sampling: Mapping[str, object], shown: Sequence[str]) -> Mapping[str, object]:
    """Return the options of how models write; ``--show reasoning`` lets the providers be asked for it."""
    return {"show_reasoning": True, **sampling} if "reasoning" in shown else sampling


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
