"""What a stage reads: the responses of an earlier one, with the question and the other stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

from ultra.errors import BadCall
from ultra.messages.results import ModelResponse

__all__ = ["StageResponses"]


class StageResponses(Sequence[ModelResponse]):
    """The responses that one stage gave, highest weight first; immutable.

    It is what ``_create_<stage>_prompt(self, responses)`` gets on a subclass of the orchestrator.

    Args:
        prompt: the question of the run.
        name: the stage whose responses these are.
        stages: the responses of every stage that has run, by stage and model name; copied one level.
    """

    def __init__(self, prompt: str, name: str, stages: Mapping[str, Mapping[str, ModelResponse]]) -> None:
        self._prompt = prompt
        self._name = name
        self._stages = dict(stages)
        self._responses = tuple(stages[name].values())

    @property
    def prompt(self) -> str:
        """The question of the run."""
        return self._prompt

    @property
    def name(self) -> str:
        """The stage that gave these responses."""
        return self._name

    def stage(self, name: str) -> StageResponses:
        """The responses of another stage that has run before.

        Raises:
            BadCall: no stage of that name has run; the message names those that have.
        """
        if name not in self._stages:
            raise BadCall(
                f"stage {name!r} has not run before this one; these have: {', '.join(self._stages)}"
            )
        return StageResponses(self._prompt, name, self._stages)

    @overload
    def __getitem__(self, index: int) -> ModelResponse: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ModelResponse]: ...

    def __getitem__(self, index: int | slice) -> ModelResponse | Sequence[ModelResponse]:
        return self._responses[index]

    def __len__(self) -> int:
        return len(self._responses)

    def __repr__(self) -> str:
        models = ", ".join(response.model_name for response in self._responses)
        return f"<StageResponses of {self._name!r}: {models}>"
