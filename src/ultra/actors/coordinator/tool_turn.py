"""The tools of a run: who has them, and whose calls are those of the run. Strategies know nothing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from ultra.clients.cleaning import shows_nothing
from ultra.errors import ModelError
from ultra.messages.bounded_json import decode_json
from ultra.messages.events import Chunk, ModelStarted, ToolsCalled
from ultra.messages.results import Usage
from ultra.messages.tool_turns import with_tool_turns_told
from ultra.scoring.tool_votes import vote_on_calls
from ultra.strategies.base import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.actors.coordinator.run import Run
    from ultra.actors.coordinator.steps import Call, OpenStep
    from ultra.messages.chat import ToolCall
    from ultra.messages.options import RunOptions
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import ModelResponse
    from ultra.strategies.base import Model

__all__ = ["ToolTurn", "readable", "without_tools"]

STEP: Final = "tools"
"""The step in which models are asked with the tools, before the strategy asks."""

_KEPT: Final = 0.5
"""The part of a run's time that this step leaves to those that follow."""


def without_tools(request: ModelRequest) -> ModelRequest:
    """Return what is asked of models that do not get the tools of `request`."""
    if not request.tools:
        return request
    messages = with_tool_turns_told(request.messages)
    return replace(request, messages=messages, tools=(), tool_choice=None)


def readable(call: Call, response: ModelResponse) -> ModelResponse:
    """Return the answer to a call.

    Raises:
        ModelError: it only calls tools, and none was offered, so there is nothing to read.
    """
    if call.message.request.tools or not response.tool_calls or not shows_nothing(response.content):
        return response
    raise ModelError(
        f"the answer has no text, but calls {response.tool_calls[0].name!r}, and no tool was offered",
        kind="content",
        retryable=False,
    )


class ToolTurn:
    """The tools of one run. `request` is what its caller asks, `plain` the same without tools.

    It does not keep the run, which keeps it: two that refer to each other would keep the question in memory.
    """

    def __init__(
        self, request: ModelRequest, plain: ModelRequest, options: RunOptions, models: Sequence[Model]
    ) -> None:
        self._request = request
        self._plain = plain
        choice = request.tool_choice
        self._offered = bool(request.tools) and (choice is None or choice.mode != "none")
        self._policy = options.tool_policy
        self._pinned = pinned = options.primary
        able = [model for model in models if model.takes_tools]
        self._able = sorted(able, key=lambda model: model.name != pinned)
        self._answers: dict[str, ModelResponse] = {}  # of models that called no tool, for the first step
        self._repeated: dict[str, None] = {}  # those that are asked the same in the first step
        self._writers: dict[str, None] = {}  # those that have got the tools for a synthesis
        self.calls: tuple[ToolCall, ...] = ()

    async def ahead(self, run: Run) -> Answer | None:
        """Ask models with the tools, ahead of the strategy; return the calls, if there are any.

        Raises:
            QuorumNotReached: the quorum is ``"all"``, and a model failed.
        """
        if not self._offered or self._policy not in {"primary", "vote"}:
            return None
        with run.step(STEP) as step:
            found = await (self._primary(run) if self._policy == "primary" else self._vote(run))
        for failure in step.failures:
            # It had all its attempts. Only one that did not understand the request may do better without.
            if failure.kind != "bad_request":
                run.unusable[failure.model_name] = None
        if found is None:
            if self._must:
                run.degrade(f"{self._required}, and no model called one; the models answered without")
            elif step.failures and not self._answers:
                run.note("no model that can call tools answered; the others were asked without tools")
            return None
        return found

    def settled(self, run: Run, answer: Answer) -> Answer:
        """Return the answer of the run, with `calls` taken note of, and told of in an event."""
        response = answer.response
        if self._offered and self._policy == "judge":
            answer = self._of_writer(run, answer)
            response = answer.response
        if answer.source != "tool_calls" or response is None:
            return answer
        self.calls = response.tool_calls
        stage = response.stage
        run.emit(ToolsCalled(stage=stage, model_name=response.model_name, calls=self.calls))
        self._check(run, response)
        return answer

    @property
    def has_answers(self) -> bool:
        """Whether a model has answered that the strategy has not asked yet."""
        return bool(self._answers)

    # --- beside the strategy ---------------------------------------------------------------------------

    def offered(self, step: OpenStep, model: Model, request: ModelRequest) -> ModelRequest:
        """Return what is asked of a model, with the tools if it is for a synthesis whose writer has them."""
        if model.name in self._answers and request == self._plain:
            self._repeated[model.name] = None  # what it is sent may be fitted to it
        if not (self._offered and self._policy == "judge" and step.name == "synthesis" and model.takes_tools):
            return request
        self._writers[model.name] = None
        return replace(request, tools=self._request.tools, tool_choice=self._request.tool_choice)

    def kept(self, run: Run, step: OpenStep, model: Model, request: ModelRequest) -> ModelResponse | None:
        """Return the answer that a model has given to this already, in the step of the tools.

        It is told as one of this step. Its tokens, dollars and seconds are those of the other step.
        """
        if request.sample or model.name not in self._answers:
            return None
        if model.name not in self._repeated and request != self._plain:
            return None
        response = replace(
            self._answers.pop(model.name),
            stage=step.name,
            usage=Usage(),
            lost_usage=None,
            response_time=0.0,
            time_to_first_token=None,
            attempts=0,
            cached=True,
            cost=None,
        )
        emit = run.emit
        emit(ModelStarted(stage=step.name, round=step.round, model_name=model.name))
        if response.content:
            text = response.content
            emit(Chunk(stage=step.name, round=step.round, model_name=model.name, text=text))
        return run.answered(step, response)

    # --- inside ----------------------------------------------------------------------------------------

    @property
    def _must(self) -> bool:
        choice = self._request.tool_choice
        return choice is not None and choice.mode in {"required", "named"}

    @property
    def _required(self) -> str:
        choice = self._request.tool_choice
        return f"tool_choice is {(choice and (choice.name or choice.mode))!r}"

    def _calls(self, response: ModelResponse) -> bool:
        """Return whether an answer calls tools, and what the caller's choice demands."""
        choice = self._request.tool_choice
        named = choice is not None and choice.mode == "named"
        return any(not named or (choice and call.name == choice.name) for call in response.tool_calls)

    async def _primary(self, run: Run) -> Answer | None:
        """Ask by weight until a model answers: with calls, or without where none is demanded."""
        waiting = list(self._able)
        if self._request.messages[-1].role == "tool" and self._pinned is None:
            run.note(
                f"the results of the tools go to {waiting[0].name!r}, the model of highest weight that can "
                "call tools; primary= names another one"
            )
        while waiting:
            response = await run.ask_first(
                self._request, models=waiting, within=run.time_left(_KEPT), required=False
            )
            if response is None:
                break
            if self._calls(response):
                if response.is_whole:
                    return Answer(self._with_ids(response), "tool_calls")
                run.degrade(
                    f"the calls of {response.model_name!r} are not made: its answer "
                    f"{response.not_whole_because}, so they may be broken"
                )
            elif not response.tool_calls:
                self._answers[response.model_name] = response
                if not self._must:
                    break
            names = [model.name for model in waiting]
            waiting = waiting[names.index(response.model_name) + 1 :]
        return None

    async def _vote(self, run: Run) -> Answer | None:
        """Ask all, and take the calls that most of the weight makes."""
        responses = await run.ask_all(
            self._request, models=self._able, samples=1, within=run.time_left(_KEPT), required=False
        )
        rank = {model.name: number for number, model in enumerate(self._able)}
        responses.sort(key=lambda response: rank[response.model_name])
        heard = [each for each in responses if self._calls(each)] if self._must else responses
        voted = vote_on_calls(heard, {model.name: model.weight for model in self._able})
        if voted is None:
            self._answers = {each.model_name: each for each in responses if not each.tool_calls}
            return None
        return Answer(self._with_ids(voted.response), "tool_calls", voted.share, "votes")

    def _of_writer(self, run: Run, answer: Answer) -> Answer:
        """Return the answer of a run in which the writer of the synthesis has the tools."""
        response = answer.response
        if response is not None and response.stage == "synthesis" and self._calls(response):
            if response.is_whole:
                return Answer(self._with_ids(response), "tool_calls")
            run.degrade(f"the calls of {response.model_name!r} are not made: they may be broken")
        elif self._must:
            run.degrade(f"{self._required}, and the synthesis called none")
        if not self._writers:
            run.note("no tool was offered: no model that can call tools wrote a synthesis")
        return answer

    def _with_ids(self, response: ModelResponse) -> ModelResponse:
        """Return the response with ids by which results can be told apart; those that can be are kept."""
        taken = {call.id for message in self._request.messages for call in message.tool_calls}
        calls = []
        for call in response.tool_calls:
            own, number = call.id, 1
            while not own or own in taken:
                number += 1
                own = f"{call.id or 'call'}_{number}"
            taken.add(own)
            calls.append(replace(call, id=own))
        return replace(response, tool_calls=tuple(calls))

    def _check(self, run: Run, response: ModelResponse) -> None:
        """Tell of calls that cannot be made; they are passed on, for the model can mend them."""
        names = [tool.name for tool in self._request.tools]
        for call in response.tool_calls:
            if call.name not in names:
                run.degrade(
                    f"{response.model_name!r} calls {call.name!r}, which is none of the tools: "
                    f"{', '.join(names)}"
                )
            elif not _is_object(call.arguments):
                run.degrade(
                    f"the arguments with which {response.model_name!r} calls {call.name!r} are no JSON object"
                )


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(decode_json(arguments or "{}"), dict)
    except (ValueError, RecursionError):
        return False
