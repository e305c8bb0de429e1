"""Stages: the built-in ones, those that users write, and what each of them asks of whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from ultra.actors.coordinator.plan import Compose, ComposedPrompt, StagePlan, Target, Write
from ultra.bridge.caller import call_in_context
from ultra.errors import BadCall, ModelError, StageFailed
from ultra.prompts.composing import Candidate, Composer, prompt_budget
from ultra.strategies.stage_responses import StageResponses

if TYPE_CHECKING:
    from ultra.actors.coordinator.run import Run
    from ultra.prompts.fencing import Labelled, Seal

__all__ = [
    "BUILT_IN",
    "INITIAL",
    "META",
    "SYNTHESIS",
    "PromptMaker",
    "Stage",
    "labelled",
    "order_stages",
    "plan_stages",
    "prompt_budget_of",
]

PromptMaker = Callable[[StageResponses], str]
"""Writes a stage's prompt from the responses that it reads; these also have `.prompt` and `.stage`."""


class Stage(Struct, frozen=True, kw_only=True):
    """One stage of the pipeline.

    name: letters, digits and ``_``; results have it as ``<name>_responses``.
    prompt: writes the prompt; None only for the built-in stages, worded in `ultra.prompts.composing`.
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
        if not str(self.name).isidentifier():
            raise BadCall(f"stage name {self.name!r} is not usable: give letters, digits and '_'")
        if self.prompt is not None and not callable(self.prompt):
            raise BadCall(
                f"stage {self.name!r} has the prompt {self.prompt!r}; give a function that writes it"
            )
        if self.asks not in ("all", "first"):
            raise BadCall(f"stage {self.name!r} asks {self.asks!r}; it can ask 'all' or 'first'")
        share: object = self.share
        if isinstance(share, bool) or not (isinstance(share, (int, float)) and 0 <= share <= 1):
            raise BadCall(f"stage {self.name!r} has a share of {share!r}; it must be between 0 and 1")


INITIAL: Final = Stage(name="initial", share=0.0)
"""All models answer the question."""

META: Final = Stage(name="meta", reads="initial", optional=True, share=0.2)
"""All models analyse the initial answers."""

SYNTHESIS: Final = Stage(name="synthesis", reads="initial", asks="first", share=0.3)
"""The model of highest weight that answered merges the answers; on failure, the next one."""

BUILT_IN: Final[Mapping[str, Stage]] = {stage.name: stage for stage in (INITIAL, META, SYNTHESIS)}


def plan_stages(
    requested: Sequence[str | Stage] | None,
    known: Mapping[str, Stage],
    *,
    system: str | None,
    seal: Seal,
    scoring_share: float = 0.0,
) -> tuple[StagePlan, ...]:
    """Turn what a caller asked for into plans, which may serve any number of runs.

    `scoring_share` is the part of the run's time to keep for scoring the initial answers.

    Raises:
        BadCall: as `order_stages`.
    """
    return tuple(
        StagePlan(
            name=stage.name,
            compose=_composer(stage, reads, system if stage.system is None else stage.system, seal),
            asks=stage.asks,
            reads=reads,
            optional=stage.optional,
            final=stage.name == "synthesis",
            share=stage.share,
            scored=stage.name == "initial",
            scoring_share=scoring_share if stage.name == "initial" else 0.0,
        )
        for stage, reads in order_stages(requested, known)
    )


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


# --- what is asked ---------------------------------------------------------------------------------


def _composer(stage: Stage, reads: str | None, system: str | None, seal: Seal) -> Compose:
    if stage.prompt is not None:
        maker = stage.prompt
        return lambda run: _one_for_all(_made(stage.name, maker, reads, run), system)
    if reads is None:
        return lambda run: _one_for_all(run.plan.question, system)

    def built_in(run: Run) -> Write:
        candidates = labelled(run, reads, seal)
        analyses = _candidates(run, "meta") if stage.name == "synthesis" and reads != "meta" else ()
        composer = (
            None
            if not candidates.texts
            else Composer(
                stage.name,
                question=run.plan.question,
                candidates=candidates,
                analyses=analyses,
                seal=seal,
                system=system,
            )
        )

        def write(target: Target) -> ComposedPrompt:
            if composer is None:
                raise ModelError(f"stage {stage.name!r} has no answers to read", kind="bad_request")
            prompt = composer.prompt_for(target.name, prompt_budget_of(target))
            cuts = {cut.model_name or cut.part: cut.tokens for cut in prompt.cuts}
            return ComposedPrompt(prompt.user, prompt.system, cuts)

        return write

    return built_in


def _one_for_all(text: str, system: str | None) -> Write:
    prompt = ComposedPrompt(text, system)
    return lambda _: prompt


def _made(stage: str, maker: PromptMaker, reads: str | None, run: Run) -> str:
    """What the user's own function writes."""
    # A first stage reads nothing: it is given a stage without responses, for the question's sake.
    responses = StageResponses(run.plan.question, reads or "", run.responses if reads else {"": {}})
    try:
        text: object = call_in_context(run.plan.caller, maker, responses)
        if not (isinstance(text, str) and text.strip()):
            raise TypeError(f"it gave {text!r}; it must give the text of the prompt")  # noqa: TRY301
    except Exception as error:
        raise StageFailed(stage, "the prompt", error) from error
    return text


def labelled(run: Run, stage: str, seal: Seal) -> Labelled:
    """The answers of a stage as other models are to read them; none where it has not run.

    Whatever reads them in this run finds them under the same labels, so these are drawn once.
    """
    known = run.labelled.get(stage)
    if known is None:
        known = run.labelled[stage] = seal.label(_candidates(run, stage))
    return known


def _candidates(run: Run, stage: str) -> tuple[Candidate, ...]:
    answers = run.responses.get(stage)
    if not answers:
        return ()
    weights = {target.name: target.model.weight for target in run.plan.targets}
    return tuple(Candidate(name, response.content, weights[name]) for name, response in answers.items())


def prompt_budget_of(target: Target) -> int | None:
    """How many tokens a prompt for this model may have; None where its window is not known."""
    window = target.model.client.context_window
    return None if window is None else prompt_budget(window)
