"""The guide's way: all models answer, all analyse the answers, one merges them. The default strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

from msgspec import Struct
from msgspec.structs import replace

from ultra._support.checks import check_count
from ultra.bridge.interruption import is_interruption
from ultra.errors import BadCall, QuorumNotReached, StageFailed
from ultra.messages.chat import ChatMessage
from ultra.messages.request import ModelRequest
from ultra.messages.results import sample_name
from ultra.prompts.history import after_history
from ultra.strategies.base import Answer
from ultra.strategies.panel import (
    check_model_name,
    check_named,
    check_names,
    only_answer,
    unanimous_answer,
    with_first,
)
from ultra.strategies.stages import BUILT_IN, Stage, StageResponses, order_stages

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ultra.messages.results import ModelResponse
    from ultra.strategies.base import Model, OpenStep, RunContext, Write
    from ultra.strategies.stages import PromptMaker

__all__ = ["Analysts", "OnCut", "Synthesize"]

Analysts = Literal["all", "one", "none"]
"""Which models analyse the answers: all of them, the first that can, or none."""

OnCut = Literal["tell", "continue", "next"]
"""What becomes of a synthesis that its limit of tokens cut off.

tell: it stands, and the result says so. continue: its writer is asked to go on, up to three times; if its
client takes no conversation but a prompt alone, as with next. next: the next model is asked to write it.
"""

_MOST_PARTS: Final = 3
"""How often a synthesis that is cut off is continued."""
_CONTINUE: Final = "Your answer was cut off. Continue exactly where it stopped, and repeat nothing of it."
_FAR_LESS: Final = 0.5
_FEWEST_TO_COMPARE: Final = 3

_MOST_KEPT: Final = 0.8
"""How much of a run's time all stages after the first may keep from it."""

_GRADING_SHARE: Final = 0.1
"""The part of a run's time that is kept for a judge's grades."""


class Synthesize(Struct, frozen=True, kw_only=True):
    """Carry out stages one after the other; the one called ``synthesis`` writes the answer.

    `stages` are names of built-in stages (initial, meta, synthesis) or `Stage` objects; None: the three
    of the guide. The stages of an orchestrator's own methods are known to it by name, too.

    With `keep_unanimous`, nothing is analysed and merged where all models come to the same short answer: that
    of the model of highest weight stands, word for word. On recorded answers to questions of GSM8K that is so
    in three quarters of the runs, and 98.7 % of these are right. `analysts` says who carries out the built-in
    ``meta`` stage; `on_cut` what becomes of a synthesis that is cut off. `answer_tokens` limits the synthesis
    alone, in place of the `max_tokens` of the run's options. `writer` is the model that is asked first to
    write it; the others stand in for it, by weight. `panel` are the models that carry out the other stages;
    None: all.

    Raises:
        BadCall: an option is not allowed.
    """

    stages: tuple[str | Stage, ...] | None = None
    keep_unanimous: bool = False
    analysts: Analysts = "all"
    on_cut: OnCut = "tell"
    answer_tokens: int | None = None
    writer: str | None = None
    panel: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, choices in (("analysts", get_args(Analysts)), ("on_cut", get_args(OnCut))):
            given = getattr(self, name)
            if given not in choices:
                raise BadCall(f"{name} is {given!r}; it must be one of: {', '.join(choices)}")
        if not isinstance(self.keep_unanimous, bool):
            raise BadCall(f"keep_unanimous is {self.keep_unanimous!r}; it must be True or False")
        check_count("answer_tokens", self.answer_tokens, optional=True)
        check_model_name("writer", self.writer)
        check_names("panel", self.panel)

    def check_models(self, asked: Sequence[str], registered: Collection[str]) -> None:  # noqa: ARG002 - as all have it
        """Check the names in the options; see `ChecksModels.check_models`."""
        check_named("writer", [self.writer], asked)
        check_named("panel", self.panel or (), asked)

    def resolve(self, known: Mapping[str, Stage], stages: Sequence[str | Stage] | None = None) -> Synthesize:
        """Return the strategy with `Stage` objects in place of names; `stages` stand before its own.

        Raises:
            BadCall: an unknown, repeated or empty stage, or one without the earlier stage that it reads.
        """
        ordered = order_stages(self.stages if stages is None else stages, known)
        return replace(self, stages=tuple(stage for stage, _ in ordered))

    async def run(self, context: RunContext) -> Answer:
        """Carry out the stages, and return what the synthesis came to; see `Strategy.run`."""
        stages = self._analysed(order_stages(self.stages, BUILT_IN))
        kept = _Kept([stage for stage, _ in stages], judged=context.judge is not None)
        answers: dict[str, list[ModelResponse]] = {}
        answer = Answer(None)
        stands = False
        for number, (stage, reads) in enumerate(stages):
            if stands and stage.prompt is None and stage.name in {"meta", "synthesis"}:
                continue
            with context.step(stage.name) as step:
                limit = self.answer_tokens if stage.name == "synthesis" else None
                write = _writer(context, stage, reads, answers, limit)
                within = context.time_left(kept.after_answers(number))
                if stage.asks == "all":
                    panel = self._panel(context)
                    responses = await context.ask_all(
                        write, models=panel, within=within, required=not stage.optional
                    )
                else:
                    whom = self._writers(context, stage, None if reads is None else answers[reads])
                    required = not (stage.optional or stage.name == "synthesis")
                    first = await context.ask_first(write, models=whom, within=within, required=required)
                    if first is not None and not first.is_whole:
                        first = await self._completed(context, stage, first, write, whom, within=within)
                    responses = [] if first is None else [first]
                if stage.name == "initial" and responses:
                    responses = await context.score(responses, within=context.time_left(kept.after(number)))
                answers[stage.name] = responses
            if stage.name == "initial" and _merges(stages):
                found = _only_one(context, self._panel(context), responses)
                if found is None and self.keep_unanimous:
                    found = await unanimous_answer(context, responses)
                stands, answer = found is not None, found or answer
            if stage.name == "synthesis":
                answer = _settle(context, step, reads, answers)
                if reads is not None and answers["synthesis"]:
                    await _tell_of_outsider(context, answers["synthesis"][0], answers[reads])
        return answer

    def _writers(
        self, context: RunContext, stage: Stage, answered: Sequence[ModelResponse] | None
    ) -> Sequence[Model]:
        whom = _whom(context, answered)
        return with_first(context, "writer", self.writer, whom) if stage.name == "synthesis" else whom

    def _panel(self, context: RunContext) -> Sequence[Model] | None:
        if self.panel is None:
            return None
        return [model for model in context.models if model.name in self.panel]

    def _analysed(self, stages: list[tuple[Stage, str | None]]) -> list[tuple[Stage, str | None]]:
        """Return the stages with the built-in analysis as `analysts` says; one that is read stays."""
        if self.analysts == "all":
            return stages
        read = {reads for _, reads in stages}
        found = []
        for stage, reads in stages:
            if stage.name != "meta" or stage.prompt is not None:
                found.append((stage, reads))
            elif self.analysts == "one" or "meta" in read:
                found.append((replace(stage, asks="first"), reads))
        return found

    async def _completed(
        self,
        context: RunContext,
        stage: Stage,
        cut: ModelResponse,
        write: Write,
        whom: Sequence[Model],
        *,
        within: float | None,
    ) -> ModelResponse:
        """Do with a synthesis that was cut off what `on_cut` says; return it as it is where that fails.

        Of any other answer that is read it is told.
        """
        if stage.name != "synthesis":
            why = cut.not_whole_because
            context.degrade(f"stage {stage.name!r}: the answer of {cut.model_name!r} {why} and is not whole")
            return cut
        writer = [model for model in whom if model.name == cut.model_name]
        if self.on_cut == "next" or (self.on_cut == "continue" and not writer[0].takes_conversations):
            others = [model for model in whom if model.name != cut.model_name]
            while others:
                found = await context.ask_first(write, models=others, within=within)
                if found is None:
                    break
                if found.is_whole:
                    return found
                others = [model for model in others if model.name != found.model_name]
            return cut
        if self.on_cut != "continue":
            return cut
        for _ in range(_MOST_PARTS):
            request = write if isinstance(write, ModelRequest) else write(writer[0])
            messages = (
                *request.messages,
                ChatMessage("assistant", cut.content),
                ChatMessage("user", _CONTINUE),
            )
            more = await context.ask_first(replace(request, messages=messages), models=writer, within=within)
            if more is None:
                break
            cut = _joined(cut, more)
            if cut.is_whole:
                context.note(f"the synthesis of {cut.model_name!r} was cut off, and continued")
                break
        return cut


def _joined(first: ModelResponse, second: ModelResponse) -> ModelResponse:
    """Return the two parts of one answer as one, with the tokens, dollars and seconds of both."""
    costs = [part.cost for part in (first, second) if part.cost is not None]
    lost = second.lost_usage if first.lost_usage is None else first.lost_usage.plus(second.lost_usage)
    return replace(
        second,
        content=first.content + second.content,
        usage=first.usage.plus(second.usage),
        lost_usage=lost,
        cost=sum(costs) if costs else None,
        response_time=first.response_time + second.response_time,
        time_to_first_token=first.time_to_first_token,
        attempts=first.attempts + second.attempts,
        cached=first.cached and second.cached,
    )


def _merges(stages: Sequence[tuple[Stage, str | None]]) -> bool:
    """Return whether the built-in synthesis is one of the stages."""
    return any(stage.name == "synthesis" and stage.prompt is None for stage, _ in stages)


def _only_one(
    context: RunContext, panel: Sequence[Model] | None, responses: Sequence[ModelResponse]
) -> Answer | None:
    """Return the answer that alone is left of several that were asked for; there is nothing to merge."""
    asked = context.models if panel is None else panel
    if len(asked) == 1 and context.options.samples == 1:
        return None  # one model alone is to go over its own answer, as the stages say
    return only_answer(context, responses, "an analysis or a synthesis")


class _Kept:
    """Which share of the run's time is kept at the end of each stage for those that follow."""

    def __init__(self, stages: Sequence[Stage], *, judged: bool) -> None:
        grading = [_GRADING_SHARE if judged and stage.name == "initial" else 0.0 for stage in stages]
        total = sum(stage.share for stage in stages[1:]) + sum(grading)
        scale = min(1.0, _MOST_KEPT / total) if total else 0.0
        self._grading = [scale * share for share in grading]
        self._shares = [scale * stage.share for stage in stages]

    def after(self, number: int) -> float:
        """What the stages after this one keep."""
        return sum(self._shares[number + 1 :]) + sum(self._grading[number + 1 :])

    def after_answers(self, number: int) -> float:
        """The same, and what this stage needs to have its answers graded."""
        return self.after(number) + self._grading[number]


def _whom(context: RunContext, answered: Sequence[ModelResponse] | None) -> Sequence[Model]:
    """Return the models that gave these answers, by weight; None stands for all."""
    if answered is None:
        return context.models
    names = {response.model_name for response in answered}
    return [model for model in context.models if model.name in names]


async def _tell_of_outsider(
    context: RunContext, synthesis: ModelResponse, candidates: Sequence[ModelResponse]
) -> None:
    """Tell where the model that wrote the synthesis agrees least with the others: it may make them worse."""
    agreed = await context.agree(candidates)
    own = sample_name(synthesis.model_name, 0)
    others = [score for name, score in agreed.votes.items() if name != own]
    if own not in agreed.votes or len(agreed.votes) < _FEWEST_TO_COMPARE:
        return
    bound = min(others) if agreed.counted else _FAR_LESS * min(others)
    if agreed.votes[own] < bound:
        context.note(
            f"the answer of {synthesis.model_name!r}, which wrote the synthesis, agrees least with those of "
            "the other models; give the model that answers best the highest weight"
        )


def _settle(
    context: RunContext, step: OpenStep, reads: str | None, answers: Mapping[str, list[ModelResponse]]
) -> Answer:
    """Return the synthesis or, where no model could write it, the best candidate."""
    if answers["synthesis"]:
        return Answer(answers["synthesis"][0], "fallback" if step.failures else "primary")
    # The newest stage that it could be about is the one that it reads; that may be empty if optional.
    stages = [answers[reads]] if reads is not None else []
    stages += [responses for name, responses in answers.items() if name != "synthesis"]
    candidates = next((responses for responses in stages if responses), None)
    if candidates is None:
        failures = {failure.model_name: failure.message for failure in context.failures}
        raise QuorumNotReached("synthesis", 1, 0, failures.items())
    failed = "" if step.left_out else "no model could write the synthesis; "
    context.degrade(f"{failed}the best candidate stands in its place")
    return Answer(context.best(candidates), "best_candidate")


# --- what is asked ---------------------------------------------------------------------------------


def _writer(
    context: RunContext,
    stage: Stage,
    reads: str | None,
    answers: Mapping[str, list[ModelResponse]],
    limit: int | None,
) -> Write:
    request = context.request
    if limit is not None:
        request = replace(request, options=replace(request.options, max_tokens=limit))
    system = request.system if stage.system is None else stage.system
    if stage.prompt is None and reads is not None:
        analyses = answers.get("meta", []) if stage.name == "synthesis" and reads != "meta" else []
        return context.compose(stage.name, answers[reads], analyses=analyses, system=system, max_tokens=limit)
    if stage.prompt is None:
        return request if stage.system is None else request.with_system(stage.system)
    make: PromptMaker = stage.prompt
    made: list[str] = []  # the same for all models, so it is written once

    def write(model: Model) -> ModelRequest:
        if not made:
            made.append(_made(context, stage.name, make, reads, answers))
        if model.takes_conversations:
            asked = after_history(request, made[0], system)
        else:  # it is the whole prompt
            asked = ModelRequest.of(made[0], system, request.options)
        answers_it = stage.name in {"initial", "synthesis"}
        return replace(asked, output=request.output) if answers_it else asked

    return write


def _made(
    context: RunContext,
    stage: str,
    maker: PromptMaker,
    reads: str | None,
    answers: Mapping[str, list[ModelResponse]],
) -> str:
    """What the user's own function writes."""
    # A first stage reads nothing: it is given a stage without responses, for the question's sake.
    known = {name: _by_name(responses) for name, responses in answers.items()} if reads else {"": {}}
    responses = StageResponses(context.request.prompt, reads or "", known)
    try:
        text: object = context.call_user(maker, responses)
        if not (isinstance(text, str) and text.strip()):
            raise TypeError(f"it gave {text!r}; it must give the text of the prompt")  # noqa: TRY301
    except BaseException as error:
        if is_interruption(error):
            raise
        raise StageFailed(stage, "the prompt", error) from error
    return text


def _by_name(responses: Sequence[ModelResponse]) -> dict[str, ModelResponse]:
    return {sample_name(response.model_name, response.sample): response for response in responses}
