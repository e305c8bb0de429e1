"""Named ensembles, the sections `[ensembles.NAME]`: whom to ask together, and how to merge what they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field

from ultra.errors import BadCall
from ultra.messages.model_options import model_options_of
from ultra.messages.options import Quorum, RunOptions
from ultra.messages.tools import ToolPolicy
from ultra.strategies.catalog import load_strategy
from ultra.strategies.stages import order_stages
from ultra.strategies.synthesize import Synthesize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.strategies.base import Strategy
    from ultra.strategies.stages import Stage

__all__ = ["EnsembleConfig", "ensemble_problems"]

_SETTINGS: Final = ("quorum", "grace", "timeout", "max_cost", "samples", "tool_policy", "per_model")


class EnsembleConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ensemble; what is left out is as in `[run]`.

    `models` are names of the section `models`, None: all of them. `strategy` is the name of a strategy, and
    `options` are its own. The other fields are those of `RunOptions`, and the system prompt. ::

        [ensembles.council]
        models = ["gpt", "claude"]
        strategy = "synthesize"
        options = { analysts = "one" }
        quorum = 2

        [ensembles.council.per_model.gpt]
        temperature = 0.9
        role = "You look for what is wrong."

    Raises:
        BadCall: a value is not allowed.
    """

    models: tuple[str, ...] | None = None
    strategy: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[str, ...] | None = None
    quorum: Quorum | None = None
    grace: float | None = None
    timeout: float | None = None
    max_cost: float | None = None
    samples: int | None = None
    tool_policy: ToolPolicy | None = None
    system: str | None = None
    per_model: Mapping[str, Mapping[str, Any]] | None = None
    description: str = ""

    def __post_init__(self) -> None:
        RunOptions().override(self.settings())
        if self.models is not None and not self.models:
            raise BadCall("models is empty; name one or more, or leave it out to ask all")
        if self.models is not None and len(set(self.models)) < len(self.models):
            raise BadCall("models names a model twice; name each once")
        if self.options and self.strategy is None:
            raise BadCall('options are those of a strategy; add its name, such as strategy = "synthesize"')

    def settings(self) -> dict[str, Any]:
        """Return the settings of a run that it gives, by name."""
        given = {name: getattr(self, name) for name in _SETTINGS if getattr(self, name) is not None}
        if self.per_model is not None:
            given["per_model"] = model_options_of(self.per_model)
        return given

    def load_strategy(self) -> Strategy | None:
        """Return its strategy; None: it names none. A class is imported. Raises `BadCall`."""
        return None if self.strategy is None else load_strategy(self.strategy, self.options)

    def arguments(self, known: Mapping[str, Stage]) -> dict[str, Any]:
        """Return it as the arguments of `process_responses`; `known` are the stages that have a name.

        Raises:
            BadCall: there is no such strategy or stage, or an option is not allowed.
        """
        strategy = self.load_strategy()
        if self.stages is not None:
            order_stages(self.stages, known)
            if not (strategy is None or isinstance(strategy, Synthesize)):
                raise BadCall(f"strategy {self.strategy!r} has no stages; leave stages out")
        given = {
            "models": self.models,
            "strategy": strategy,
            "stages": self.stages,
            "system": self.system,
            **self.settings(),
        }
        return {name: value for name, value in given.items() if value is not None}


def ensemble_problems(
    ensembles: Mapping[str, EnsembleConfig], models: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what is wrong with ensembles of these `models`: the place, and what is allowed there."""
    for name, ensemble in ensembles.items():
        where = ("ensembles", name)
        if not name.strip() or not name.isprintable():
            yield where, "an ensemble must have a name that can be shown"
        if name in models:
            yield where, "a model has the same name; clients could not tell them apart"
        unknown = [model for model in ensemble.models or () if model not in models]
        if unknown:
            yield (*where, "models"), f"found {unknown[0]!r}; allowed are: {', '.join(models)}"
        unknown = [model for model in ensemble.per_model or () if model not in models]
        if unknown:
            yield (*where, "per_model"), f"found {unknown[0]!r}; allowed are: {', '.join(models)}"
        count = len(models if ensemble.models is None else ensemble.models)
        quorum = ensemble.quorum
        if isinstance(quorum, int) and count and quorum > count:
            allowed = f"'all', or a number between 1 and {count}"
            yield (*where, "quorum"), f"found {quorum!r}; allowed is {allowed}"
