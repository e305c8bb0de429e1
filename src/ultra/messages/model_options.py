"""Options of one model in a run: how it writes, and the role that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, structs

from ultra._support.checks import check_text, shown
from ultra.errors import BadCall
from ultra.messages.request import ModelRequest, SamplingOptions

__all__ = ["ModelOptions", "model_options_of"]


class ModelOptions(Struct, frozen=True, kw_only=True):
    """What one model of a run is asked with, in place of the options of all.

    `sampling` are the options that differ. `role` stands behind the system prompt where the model answers the
    question itself, such as "You look for what is wrong."; readers and judges have none.

    Raises:
        BadCall: the role is no text.
    """

    sampling: SamplingOptions = SamplingOptions()
    role: str | None = None

    def __post_init__(self) -> None:
        check_text("role", self.role, optional=True)

    @classmethod
    def of(cls, name: str, given: object) -> ModelOptions:
        """Return the options that a caller gives a model: such an object, or a mapping.

        Raises:
            BadCall: it is something else, or a value is not allowed; the message shows no values.
        """
        if isinstance(given, ModelOptions):
            return given
        if not isinstance(given, Mapping):
            raise BadCall(
                f"per_model of {name!r} is of type {type(given).__name__}; it must be a mapping of options"
            )
        options: dict[Any, Any] = dict(given)
        role = options.pop("role", None)
        return cls(sampling=SamplingOptions.of(options), role=role)

    def with_options(self, name: str, given: Mapping[str, object]) -> ModelOptions:
        """Return these options with those that a caller gives the model `name` in their place, one by one.

        Raises:
            BadCall: a value is not allowed; the message shows no values.
        """
        fresh = ModelOptions.of(name, given)
        values = structs.asdict(fresh.sampling)
        changes = {option: value for option, value in values.items() if value is not None}
        changes["extra"] = self.sampling.extra | fresh.sampling.extra
        sampling = structs.replace(self.sampling, **changes)
        return ModelOptions(sampling=sampling, role=self.role if fresh.role is None else fresh.role)

    def over(self, options: SamplingOptions) -> SamplingOptions:
        """Return `options`, with those of the model in their place, one by one."""
        changes = {name: value for name, value in structs.asdict(self.sampling).items() if value is not None}
        changes["extra"] = options.extra | self.sampling.extra
        return structs.replace(options, **changes)

    def applied(self, request: ModelRequest, *, answers: bool) -> ModelRequest:
        """Return `request` with these options; `answers`: it is the question of the run itself."""
        options = self.over(request.options)
        if options != request.options:
            request = structs.replace(request, options=options)
        if self.role and answers:
            system = request.system
            request = request.with_system(f"{system}\n\n{self.role}" if system else self.role)
        return request


def model_options_of(given: object) -> dict[str, ModelOptions]:
    """Return the options by the names of models. Raises `BadCall` where they are no mapping."""
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise BadCall(f"per_model is {shown(type(given))}; it must be a mapping from models to their options")
    return {name: ModelOptions.of(name, options) for name, options in given.items()}
