"""The settings of one run: for the orchestrator, a call, `ultra.toml` and the command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

from msgspec import Struct, structs

from ultra._support.checks import check_count, check_flag, check_number, check_seconds, did_you_mean, shown
from ultra.errors import BadCall
from ultra.messages.model_options import ModelOptions
from ultra.messages.request import SamplingOptions
from ultra.messages.tools import ToolPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ultra.messages.tools import Tool, ToolChoice

__all__ = ["Quorum", "RunArguments", "RunOptions"]

Quorum = int | Literal["all"]
"""How many models must answer in a step that asks all."""


class RunOptions(Struct, frozen=True, kw_only=True):
    """The settings of one run.

    Attributes:
        timeout: seconds for the whole run; None: no limit.
        quorum: how many models must answer in a step that asks all; ``"all"``: every one of them.
        grace: seconds that a step that asks all goes on waiting once its quorum has answered; then the
            models that have not answered are cancelled. None: it waits for all.
        max_cost: dollars; once the answers have cost so much, no further step asks a model.
        use_cache: whether the answer of an equal request may be used, from the cache or from a call that
            is under way.
        scope: for whom the run is, such as the name of a tenant: answers and calls under way are shared
            only with runs and calls of the same scope. None: with all that have none.
        samples: how often each model is asked in a step that asks all.
        tool_policy: whose tool calls are those of the run; see `ultra.messages.tools.ToolPolicy`.
        primary: the name of the model that is asked first for its tool calls; None: that of highest weight.
        name: what telemetry calls the run, such as the name of its ensemble; None: by its strategy.
        sampling: options of how the models write; see `SamplingOptions`.
        per_model: options of single models in place of these, by name; see `ModelOptions`.

    Raises:
        BadCall: a value is not allowed; the message says what is.
    """

    timeout: float | None = None
    quorum: Quorum = 1
    grace: float | None = None
    max_cost: float | None = None
    use_cache: bool = True
    scope: str | None = None
    samples: int = 1
    tool_policy: ToolPolicy = "primary"
    primary: str | None = None
    name: str | None = None
    sampling: SamplingOptions = SamplingOptions()
    per_model: dict[str, ModelOptions] = {}

    def __post_init__(self) -> None:
        name: object = self.name
        if name is not None and not isinstance(name, str):
            raise BadCall(f"the name is of type {type(name).__name__}; it must be text (str), or None")
        check_seconds("timeout", self.timeout, positive=True, endless=True, optional=True)
        check_seconds("grace", self.grace, endless=True, optional=True)
        check_number("max_cost", self.max_cost, positive=True, endless=True, optional=True, unit="dollars")
        if self.quorum != "all" and not _is_count(self.quorum):
            raise BadCall(
                f"the quorum is {shown(self.quorum)}; it must be 'all', or a whole number of at least 1"
            )
        check_flag("use_cache", self.use_cache)
        scope: object = self.scope
        if scope is not None and not isinstance(scope, str):
            raise BadCall(f"the scope is of type {type(scope).__name__}; it must be text (str), or None")
        check_count("samples", self.samples)
        if self.tool_policy not in get_args(ToolPolicy):
            choices = ", ".join(map(repr, get_args(ToolPolicy)))
            raise BadCall(f"tool_policy is {shown(self.tool_policy)}; it must be one of {choices}")
        primary: object = self.primary
        if primary is not None and not isinstance(primary, str):
            raise BadCall(f"primary is of type {type(primary).__name__}; it must be the name of a model")
        if not isinstance(self.sampling, SamplingOptions):  # one of its values may be a key: none is shown
            kind = type(self.sampling).__name__
            raise BadCall(f"sampling is of type {kind}; it must be a SamplingOptions object")
        per_model: object = self.per_model
        if not isinstance(per_model, dict):
            kind = type(per_model).__name__
            raise BadCall(f"per_model is of type {kind}; it must be a dict from models to their options")
        for model, options in per_model.items():
            if not isinstance(model, str) or not isinstance(options, ModelOptions):
                raise BadCall("per_model must have a ModelOptions object for each name of a model")

    def override(self, given: Mapping[str, Any]) -> RunOptions:
        """Return these settings with the `given` ones, as far as they are not None, in their place.

        Raises:
            BadCall: there is no such setting, or its value is not allowed.
        """
        unknown = [name for name in given if name not in self.__struct_fields__]
        if unknown:
            choices = ", ".join(self.__struct_fields__)
            hint = did_you_mean(unknown[0], self.__struct_fields__)
            raise BadCall(f"unknown setting {unknown[0]!r} of a run; there are: {choices}{hint}")
        changes = {name: value for name, value in given.items() if value is not None}
        return structs.replace(self, **changes) if changes else self

    def needed(self, models: int) -> int:
        """Return how many of so many models must answer.

        Raises:
            BadCall: the quorum is higher than this number.
        """
        if self.quorum == "all":
            return models
        if self.quorum > models:
            raise BadCall(
                f"the quorum is {self.quorum!r}; it must be 'all', or a whole number of at least 1 and at "
                f"most the number of models that are asked ({models})"
            )
        return self.quorum


class RunArguments(TypedDict, total=False):
    """The settings of a run as keyword arguments of a call; None: that of the orchestrator.

    See `RunOptions`. `system` is the system prompt of the models that answer the question. `options` are
    passed to the clients that declare them: ``{"temperature": 0.2, "max_tokens": 500}``. `tools` are `Tool`
    objects, typed functions, or mappings in the form of OpenAI or Anthropic; `tool_choice` says whether one
    must be called, as `ToolChoice.of` takes it. `output` is the form of the answer: a msgspec Struct, a
    dataclass, a TypedDict, a NamedTuple, a list or a union of such, a pydantic model, or a JSON schema (a
    dict, or OpenAI's ``response_format``). Answers that do not satisfy it are asked for once more.
    `per_model` has options of single models by name, in place of `options`, and the ``role`` that one takes:
    ``{"gpt": {"temperature": 0.9, "role": "You look for what is wrong."}}``.
    """

    name: str | None
    system: str | None
    timeout: float | None
    quorum: Quorum | None
    grace: float | None
    max_cost: float | None
    use_cache: bool
    scope: str | None
    samples: int | None
    tools: Sequence[Tool | Mapping[str, Any] | Callable[..., object]] | None
    tool_choice: ToolChoice | str | Mapping[str, Any] | None
    tool_policy: ToolPolicy | None
    primary: str | None
    output: object
    options: Mapping[str, object] | SamplingOptions | None
    per_model: Mapping[str, Mapping[str, object] | ModelOptions] | None


def _is_count(value: object) -> bool:
    return type(value) is int and 1 <= value < 2**64  # as far as it can be encoded
