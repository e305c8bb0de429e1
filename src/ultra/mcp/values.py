"""What the tools take and give, as values; their JSON schemas are made of these."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "AnswerSummary",
    "AskArguments",
    "AskResult",
    "CompareArguments",
    "CompareResult",
    "EnsembleSummary",
    "FailureSummary",
    "ModelSummary",
    "ModelsArguments",
    "ModelsResult",
    "schema_of",
]

_REFERENCE: Final = "#/$defs/{name}"

# A schema without any keyword is what some clients refuse or warn of.
_KINDS: Final = ("object", "array", "string", "number", "boolean", "null")
_ANY_JSON: Final = Meta(extra_json_schema={"anyOf": [{"type": kind} for kind in _KINDS]})

Prompt = Annotated[str, Meta(description="The question, with all that is needed to answer it.", min_length=1)]
System = Annotated[str | None, Meta(description="Instructions for every model that is asked.")]
Timeout = Annotated[float | None, Meta(description="Seconds after which the run is given up.")]


class AskArguments(Struct, forbid_unknown_fields=True):
    """What the tool ``ask`` takes."""

    prompt: Prompt
    ensemble: Annotated[
        str | None, Meta(description="An ensemble, or one model; the tool models lists them.")
    ] = None
    models: Annotated[
        tuple[str, ...] | None, Meta(description="Whom to ask, in place of the models of the ensemble.")
    ] = None
    strategy: Annotated[
        str | None, Meta(description="How to ask and merge, in place of the ensemble's own way.")
    ] = None
    strategy_options: Annotated[
        dict[str, Any] | None, Meta(description="Options of that strategy, by name.")
    ] = None
    schema: Annotated[
        dict[str, Any] | None,
        Meta(description="A JSON schema; then the answer is JSON that satisfies it, also given as output."),
    ] = None
    system: System = None
    timeout: Timeout = None
    max_cost: Annotated[float | None, Meta(description="Dollars that the run may cost.")] = None
    include_answers: Annotated[
        bool, Meta(description="Whether to give back what each model said, too; that is much text.")
    ] = False


class CompareArguments(Struct, forbid_unknown_fields=True):
    """What the tool ``compare`` takes."""

    prompt: Prompt
    models: Annotated[tuple[str, ...] | None, Meta(description="Whom to ask; left out: every model.")] = None
    system: System = None
    timeout: Timeout = None
    max_cost: Annotated[float | None, Meta(description="Dollars that all answers may cost.")] = None


class ModelsArguments(Struct, forbid_unknown_fields=True):
    """What the tool ``models`` takes: nothing."""


class AnswerSummary(Struct, frozen=True):
    """What one model said. `quality` is a score, 0..1; `cost` is dollars."""

    model: str
    content: str
    seconds: float
    quality: float | None = None
    finish_reason: str | None = None
    tokens: int | None = None
    cost: float | None = None


class FailureSummary(Struct, frozen=True):
    """A model that failed, and by what kind of error: never the words of its provider."""

    model: str
    error: str


class AskResult(Struct, frozen=True):
    """What the tool ``ask`` gives.

    `output` is the answer as JSON where a schema was given. `confidence` (0..1) says how sure the run is of
    its answer, and `confidence_basis` by what. `answers` are those of the models, where they were wanted.
    """

    answer: str
    status: Literal["success", "degraded"]
    run_id: str
    ensemble: str
    strategy: str
    seconds: float
    output: Annotated[Any, _ANY_JSON] = None
    source: str | None = None
    written_by: str | None = None
    confidence: float | None = None
    confidence_basis: str | None = None
    cost: float | None = None
    tokens: int = 0
    models: tuple[str, ...] = ()
    failed: tuple[FailureSummary, ...] = ()
    answers: tuple[AnswerSummary, ...] = ()


class CompareResult(Struct, frozen=True):
    """What the tool ``compare`` gives: one answer of each model, highest weight first, and no merging."""

    answers: tuple[AnswerSummary, ...]
    run_id: str
    seconds: float
    cost: float | None = None
    failed: tuple[FailureSummary, ...] = ()


class EnsembleSummary(Struct, frozen=True):
    """One ensemble: who is asked, and how the answers are merged."""

    name: str
    strategy: str
    models: tuple[str, ...]
    description: str = ""


class ModelSummary(Struct, frozen=True):
    """What is known of one model; prices are dollars for a million tokens, None: not known."""

    name: str
    status: Literal["up", "degraded", "down"]
    context_window: int | None = None
    images: bool | None = None
    input_price: float | None = None
    output_price: float | None = None


class ModelsResult(Struct, frozen=True):
    """What the tool ``models`` gives. `default` is what ``ask`` asks where no ensemble is named."""

    default: str
    ensembles: tuple[EnsembleSummary, ...]
    models: tuple[ModelSummary, ...]
    strategies: tuple[str, ...]


def schema_of(kind: type[Struct]) -> dict[str, Any]:
    """Return the JSON schema of a value, an object at its root, as MCP wants it."""
    (reference,), definitions = msgspec.json.schema_components((kind,), ref_template=_REFERENCE)
    own = definitions.pop(str(reference["$ref"]).rpartition("/")[2])
    own.pop("title", None)
    own.pop("description", None)
    return {**own, **({"$defs": definitions} if definitions else {})}
