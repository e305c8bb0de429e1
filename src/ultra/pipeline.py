"""Stages: the built-in ones, those that users write, and what each of them asks of whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from ultra.actors.run import Compose, ComposedPrompt, JudgePlan, Run, StagePlan, Target
from ultra.errors import BadCall, StageFailed
from ultra.prompts import Candidate, Prompt, compose, prompt_budget
from ultra.quality import JUDGE, parse_grades
from ultra.responses import StageResponses

__all__ = ["BUILT_IN", "INITIAL", "META", "SYNTHESIS", "PromptMaker", "Stage", "plan_judge", "plan_stages"]

PromptMaker = Callable[[StageResponses], str]
"""Writes a stage's prompt from the responses that it reads; these also have `.prompt` and `.stage`."""


class Stage(Struct, frozen=True, kw_only=True):
    """One stage of the pipeline.

    name: letters, digits and ``_``; results have it as ``<name>_responses``.
    prompt: writes the prompt; None only for the built-in stages, whose words are in `ultra.prompts`.
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
        if self.asks not in {"all", "first"}:
            raise BadCall(f"stage {self.name!r} asks {self.asks!r}; it can ask 'all' or 'first'")
        if not 0 <= self.share <= 1:
            raise BadCall(f"stage {self.name!r} has a share of {self.share!r}; it must be between 0 and 1")


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
    secret: bytes,
) -> tuple[StagePlan, ...]:
    """Turn what a caller asked for into plans; None asks for the built-in stages.

    Raises:
        BadCall: an unknown, repeated or empty stage, or one without the earlier stage that it reads.
    """
    stages = _resolve(BUILT_IN if requested is None else requested, known)
    plans: list[StagePlan] = []
    for stage in stages:
        earlier = [plan.name for plan in plans]
        reads = stage.reads or (earlier[-1] if earlier and stage.name != "initial" else None)
        if reads is not None and reads not in earlier:
            before = f"; before it come: {', '.join(earlier)}" if earlier else ""
            raise BadCall(f"stage {stage.name!r} reads stage {reads!r}, which must come before it{before}")
        plans.append(
            StagePlan(
                name=stage.name,
                compose=_composer(replace(stage, reads=reads), system, secret),
                asks=stage.asks,
                reads=reads,
                optional=stage.optional,
                final=stage.name == "synthesis",
                scored=stage.name == "initial",
                share=stage.share,
            )
        )
    return tuple(plans)


def plan_judge(target: Target, *, secret: bytes) -> JudgePlan:
    """Let the model of `target` grade the initial answers, without knowing whose they are."""

    def ask(run: Run, target: Target) -> tuple[ComposedPrompt, Callable[[str], Mapping[str, float]]]:
        prompt = compose(
            "judge",
            task=JUDGE,
            question=run.plan.question,
            candidates=_candidates(run, "initial"),
            asked_model=target.name,
            secret=secret,
            budget=_budget(target),
        )
        return _composed(prompt), lambda reply: parse_grades(reply, prompt.labels)

    return JudgePlan(target, ask)


def _composed(prompt: Prompt) -> ComposedPrompt:
    cuts = {cut.model_name or cut.part: cut.tokens for cut in prompt.cuts}
    return ComposedPrompt(user=prompt.user, system=prompt.system, cuts=cuts)


def _resolve(requested: object, known: Mapping[str, Stage]) -> list[Stage]:
    choices = ", ".join(known)
    if isinstance(requested, (str, Stage)) or not isinstance(requested, (Sequence, Mapping)):
        raise BadCall(f"stages is {requested!r}; give a list of names ({choices}) or Stage objects")
    if not requested:
        raise BadCall(f"stages is empty; give at least one of: {choices}")
    stages: list[Stage] = []
    for item in requested:
        stage = known.get(item) if isinstance(item, str) else item
        if not isinstance(stage, Stage):
            raise BadCall(f"unknown stage {item!r}; there are: {choices}")
        if stage.name in {other.name for other in stages}:
            raise BadCall(f"stage {stage.name!r} is asked for twice")
        if stage.prompt is None and stage.name not in BUILT_IN:
            raise BadCall(f"stage {stage.name!r} has no prompt; give one: Stage(name=..., prompt=...)")
        stages.append(stage)
    return stages


def _composer(stage: Stage, run_system: str | None, secret: bytes) -> Compose:
    system = stage.system if stage.system is not None else run_system
    if stage.prompt is not None:
        return lambda run, _: _from_maker(stage, stage.prompt, system, run)
    if stage.name == "initial":
        return lambda run, _: ComposedPrompt(user=run.plan.question, system=system)

    def built_in(run: Run, target: Target) -> ComposedPrompt:
        prompt = compose(
            stage.name,
            question=run.plan.question,
            candidates=_candidates(run, "initial"),
            analyses=_candidates(run, "meta") if stage.name == "synthesis" else (),
            asked_model=target.name,
            secret=secret,
            system=system,
            budget=_budget(target),
        )
        return _composed(prompt)

    return built_in


def _from_maker(stage: Stage, maker: PromptMaker | None, system: str | None, run: Run) -> ComposedPrompt:
    # A first stage reads nothing: it is given a stage without responses, for the question's sake.
    reads = stage.reads or ""
    stages = run.responses if stage.reads is not None else {reads: {}}
    responses = StageResponses(run.plan.question, reads, stages)
    try:
        text = maker(responses) if maker is not None else None
        if not isinstance(text, str) or not text.strip():
            raise TypeError(f"it gave {text!r}; it must give the text of the prompt")  # noqa: TRY301
    except Exception as error:
        raise StageFailed(stage.name, "the prompt", error) from error
    return ComposedPrompt(user=text, system=system)


def _candidates(run: Run, stage: str) -> tuple[Candidate, ...]:
    weights = {target.name: target.model.weight for target in run.plan.targets}
    return tuple(
        Candidate(model_name=name, content=response.content, weight=weights[name])
        for name, response in run.responses.get(stage, {}).items()
    )


def _budget(target: Target) -> int | None:
    """How many tokens a prompt for this model may have; None where its window is not known."""
    window = target.model.adapter.context_window
    return None if window is None else prompt_budget(window)
