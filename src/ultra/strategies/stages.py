"""Stages: the steps of `synthesize`, and the responses from which a custom stage writes its prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, overload

from msgspec import Struct

from ultra._support.checks import check_flag, check_text, shown
from ultra.errors import BadCall
from ultra.messages.results import ModelResponse

__all__ = [
    "BUILT_IN",
    "INITIAL",
    "META",
    "SYNTHESIS",
    "PromptMaker",
    "Stage",
    "StageResponses",
    "order_stages",
]


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


PromptMaker = Callable[[StageResponses], str]
"""Writes a stage's prompt from the responses that it reads; these also have `.prompt` and `.stage`."""


class Stage(Struct, frozen=True, kw_only=True):
    """One stage of the pipeline.

    name: letters, digits and ``_``; results have it as ``<name>_responses``.
    prompt: writes the prompt; None only for the built-in stages, worded in `ultra.prompts`.
    reads: the earlier stage whose responses `prompt` gets; None: the one before it, if there is one.
    asks: ``"all"`` models at once, or, by weight, one after the other until the ``"first"`` answers.
    system: system prompt, in place of the run's. optional: whether the run goes on without it.
    share: the part (0..1) of the run's time that is kept for this stage while earlier ones run.
    """

    name: str
    prompt: PromptMaker | None = None
    reads: str | None = None
    asks: Literal["all", "first"] = "all"
    system: str | None = None
    optional: bool = False
    share: float = 0.2

    def __post_init__(self) -> None:
        name: object = self.name
        if not (isinstance(name, str) and name.isidentifier()):
            raise BadCall(f"stage name {shown(self.name)} is not usable: give letters, digits and '_'")
        if self.prompt is not None and not callable(self.prompt):
            raise BadCall(
                f"stage {self.name!r} has the prompt {shown(self.prompt)}; give a function that writes it"
            )
        if self.asks not in ("all", "first"):
            raise BadCall(f"stage {self.name!r} asks {shown(self.asks)}; it can ask 'all' or 'first'")
        for what in ("reads", "system"):
            check_text(f"{what} of stage {self.name!r}", getattr(self, what), optional=True)
        check_flag(f"optional of stage {self.name!r}", self.optional)
        share: object = self.share
        if isinstance(share, bool) or not (isinstance(share, (int, float)) and 0 <= share <= 1):
            raise BadCall(f"stage {self.name!r} has a share of {shown(share)}; it must be between 0 and 1")


INITIAL: Final = Stage(name="initial", share=0.0)
"""All models answer the question."""

META: Final = Stage(name="meta", reads="initial", optional=True, share=0.2)
"""All models analyse the initial answers."""

SYNTHESIS: Final = Stage(name="synthesis", reads="initial", asks="first", share=0.3)
"""The model of highest weight that answered merges the answers; on failure, the next one."""

BUILT_IN: Final[Mapping[str, Stage]] = {stage.name: stage for stage in (INITIAL, META, SYNTHESIS)}


def order_stages(
    requested: Sequence[str | Stage] | None, known: Mapping[str, Stage]
) -> list[tuple[Stage, str | None]]:
    """The stages that a caller asked for, each with what it reads; None asks for the built-in ones.

    Raises:
        BadCall: an unknown, repeated or empty stage, or one without the earlier stage that it reads.
    """
    ordered: list[tuple[Stage, str | None]] = []
    earlier: list[str] = []
    for stage in _resolve(tuple(BUILT_IN) if requested is None else requested, known):
        reads = stage.reads or (earlier[-1] if earlier and stage.name != "initial" else None)
        if reads is not None and reads not in earlier:
            before = f"; before it come: {', '.join(earlier)}" if earlier else ""
            raise BadCall(f"stage {stage.name!r} reads stage {reads!r}, which must come before it{before}")
        ordered.append((stage, reads))
        earlier.append(stage.name)
    return ordered


def _resolve(requested: object, known: Mapping[str, Stage]) -> list[Stage]:
    choices = ", ".join(known)
    if isinstance(requested, (str, Stage)) or not isinstance(requested, Sequence):
        raise BadCall(f"stages is {requested!r}; give a list of names ({choices}) or Stage objects")
    if not requested:
        raise BadCall(f"stages is empty; give at least one of: {choices}")
    stages: dict[str, Stage] = {}
    for item in requested:
        stage = known.get(item) if isinstance(item, str) else item
        if not isinstance(stage, Stage):
            raise BadCall(f"unknown stage {item!r}; there are: {choices}")
        if stage.name in stages:
            raise BadCall(f"stage {stage.name!r} is asked for twice")
        if stage.prompt is None and stage.name not in BUILT_IN:
            raise BadCall(f"stage {stage.name!r} has no prompt; give one: Stage(name=..., prompt=...)")
        stages[stage.name] = stage
    return list(stages.values())
