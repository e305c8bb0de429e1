"""Named ensembles: models and the settings of a run under one name, as `[ensembles.NAME]` in `ultra.toml`."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from ultra._support.checks import did_you_mean, shown
from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ultra.messages.conversation import Conversation
    from ultra.messages.results import OrchestrationResult
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
    from ultra.orchestrator.streams import RunStream

__all__ = ["Ensemble", "Ensembles"]


class Ensemble:
    """An ensemble of an orchestrator: `MultiLLMOrchestrator.ensemble` returns it.

    Attributes:
        name: its name.
        arguments: what each of its runs is given, as `MultiLLMOrchestrator.process_responses` takes it.
        description: what it is for, in the words of its owner.
    """

    def __init__(
        self,
        orchestrator: MultiLLMOrchestrator,
        name: str,
        arguments: Mapping[str, Any],
        description: str = "",
    ) -> None:
        self.name = name
        self.arguments = dict(arguments)
        self.description = description
        self._orchestrator = orchestrator

    def __repr__(self) -> str:
        return f"<Ensemble {self.name!r}: {', '.join(self.models)}>"

    @property
    def models(self) -> list[str]:
        """The names of its models, highest weight first."""
        return self._orchestrator.get_prioritized_models(self.arguments.get("models"))

    async def process_responses(self, prompt: Conversation, **run: Any) -> OrchestrationResult:  # noqa: ANN401 - those of the orchestrator's method
        """Ask it, and return the result; see `MultiLLMOrchestrator.process_responses`.

        `run` are arguments of that method, which go before those of the ensemble.
        """
        return await self._orchestrator.process_responses(prompt, **self._with(run))

    def stream_responses(self, prompt: Conversation, **run: Any) -> RunStream:  # noqa: ANN401 - as above
        """Return a stream of the events of a run; see `MultiLLMOrchestrator.stream_responses`."""
        return self._orchestrator.stream_responses(prompt, **self._with(run))

    def _with(self, run: Mapping[str, Any]) -> dict[str, Any]:
        arguments = dict(self.arguments)
        if _takes_name(self._orchestrator.process_responses):
            arguments = {"name": self.name, **arguments}
        if run.get("strategy") is not None:
            arguments.pop("stages", None)  # they belong to the strategy of the ensemble
        return arguments | {name: value for name, value in run.items() if value is not None}


def _takes_name(process: Callable[..., object]) -> bool:
    """Return whether a run can be given a name; a subclass may override the method with fewer arguments."""
    parameters = signature(process).parameters
    return "name" in parameters or any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values())


class Ensembles:
    """The ensembles of one orchestrator, by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, Ensemble] = {}

    def add(self, ensemble: Ensemble, check: Callable[[], object]) -> None:
        """Add one, once ``check()`` has not raised.

        Raises:
            BadCall: the name is empty or taken, or what `check` raises.
        """
        if not ensemble.name.strip():
            raise BadCall("an ensemble must have a name")
        if ensemble.name in self.by_name:
            raise BadCall(f"there is an ensemble {ensemble.name!r} already; give this one another name")
        check()
        self.by_name[ensemble.name] = ensemble

    def get(self, name: str) -> Ensemble:
        """Return the ensemble of this name. Raises `BadCall`."""
        found = self.by_name.get(name)
        if found is None:
            choices = ", ".join(self.by_name) or "none; add one as [ensembles.NAME] in ultra.toml"
            hint = did_you_mean(name, self.by_name)
            raise BadCall(f"unknown ensemble {shown(name)}; there are: {choices}{hint}")
        return found
