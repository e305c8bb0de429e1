"""Checks of the arguments of an orchestrator and its calls, before any model is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from ultra._support.checks import check_writable, did_you_mean, nearest
from ultra.errors import BadCall
from ultra.messages.conversation import conversation_of, with_system
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.messages.tools import ToolChoice
from ultra.prompts.history import count_unseen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ultra.actors.model.registered import RegisteredModel
    from ultra.messages.conversation import Conversation
    from ultra.messages.options import RunArguments, RunOptions
    from ultra.messages.output_types import OutputType
    from ultra.messages.tools import Tool
    from ultra.scoring.agreement import Scorer

__all__ = [
    "check_media",
    "check_options",
    "check_tools",
    "checked_object",
    "checked_scorer",
    "checked_stage_label",
    "checked_system",
    "output_of",
    "request_of",
]

T = TypeVar("T")

_NEARLY_THE_SAME: Final = 0.9  # as "temprature" and "temperature"; "top_k" and "top_p" are 0.8


def output_of(given: object) -> OutputType | None:
    """Return the form that a call gives as ``output=``; None for None. Raises as `OutputType.of` does."""
    if given is None:
        return None
    from ultra.messages.output_types import OutputType  # noqa: PLC0415 - most programs want texts

    return OutputType.of(given)


def _tools_of(given: object) -> tuple[Tool, ...]:
    if given is None:
        return ()
    from ultra.messages.functions import tools_of  # noqa: PLC0415 - most programs give none

    return tools_of(given)


def request_of(
    prompt: Conversation,
    system: str | None,
    sampling: SamplingOptions,
    given: RunArguments,
    output: OutputType | None = None,
) -> ModelRequest:
    """Return the request that a call makes.

    Args:
        prompt: the question, or the conversation.
        system: the system prompt of the call, or else that of the orchestrator. The former stands ahead of
            those in the conversation, the latter is for calls that bring none.
        sampling: how the models write.
        given: the arguments of the call.
        output: the form of the answer.

    Raises:
        BadCall: the conversation is none, or a tool.
    """
    messages = conversation_of(prompt)
    if given.get("system") is None and any(message.role == "system" for message in messages):
        system = None
    tools, choice = _tools_of(given.get("tools")), ToolChoice.of(given.get("tool_choice"))
    if choice is not None and choice.mode != "none" and not tools:
        raise BadCall(f"tool_choice is {choice.name or choice.mode!r}, but there are no tools; give tools=")
    if choice is not None and choice.mode == "named" and choice.name not in {tool.name for tool in tools}:
        names = ", ".join(tool.name for tool in tools)
        raise BadCall(f"tool_choice names {choice.name!r}, which is none of the tools: {names}")
    return ModelRequest(
        messages=with_system(messages, system),
        tools=tools,
        tool_choice=choice,
        output=None if output is None else output.schema,
        options=sampling,
    )


def check_media(request: ModelRequest, models: Sequence[RegisteredModel]) -> None:
    """Raise `BadCall` if `request` has an image, or a document, that none of `models` reads.

    A model of which that is not known may read it. What a tool gave is no reason: in the middle of a
    conversation, the model that called it is told in words.
    """
    told = [message for message in request.messages if message.role != "tool"]
    images, files = count_unseen(told, images=False, files=False)
    if images and any(model.client.reads_images is not False for model in models):
        images = 0
    if files and any(model.client.reads_files is not False for model in models):
        files = 0
    if images or files:
        one, many, fact = ("an image", "images", "images") if images else ("a document", "documents", "pdf")
        names = ", ".join(repr(model.name) for model in models)
        prompt_only = [repr(model.name) for model in models if not model.client.takes_conversations]
        why = f" (taking a prompt alone: {', '.join(prompt_only)})" if prompt_only else ""
        raise BadCall(
            f"the prompt has {one}, but no model of this call is known to read {many}: {names}{why}; "
            f"add a model that does, leave {one} out, or, if a model does, say so: connect(..., {fact}=True)"
        )


def check_tools(request: ModelRequest, options: RunOptions, models: Sequence[RegisteredModel]) -> None:
    """Raise `BadCall` if a run of `models` cannot have the tools of its request, or names a wrong primary."""
    primary = options.primary
    if primary is not None and primary not in {model.name for model in models}:
        names = ", ".join(model.name for model in models)
        raise BadCall(f"primary is {primary!r}; it must be one of the models that are asked: {names}")
    choice = request.tool_choice
    if not request.tools or (choice is not None and choice.mode == "none"):
        return
    if options.tool_policy == "refuse":
        names = ", ".join(tool.name for tool in request.tools)
        raise BadCall(f"tool_policy is 'refuse', and the run has tools ({names}); leave tools= out")
    unable = [model.name for model in models if not model.client.takes_tools]
    if primary in unable or len(unable) == len(models):
        which = repr(primary) if primary in unable else f"no model of this run ({', '.join(unable)})"
        verb = "cannot take" if primary in unable else "can take"
        raise BadCall(
            f"{which} {verb} tools; ask a model that calls tools, or declare 'tools' in generate() of your "
            "client, or leave tools= out"
        )


def checked_stage_label(stage: object) -> str:
    """Return `stage`; raise `BadCall` unless it is text that is not empty."""
    if not isinstance(stage, str) or not stage.strip():
        raise BadCall(f"the stage is {stage!r}; it must be the name of a stage, such as 'initial'")
    return stage


def checked_object(name: str, value: T | None, kind: type[T]) -> T | None:
    """Return `value`; raise `BadCall` unless it is None or of the type `kind`."""
    if value is not None and not isinstance(value, kind):
        raise BadCall(f"{name} is {value!r}; it must be a {kind.__name__} object, or None")
    return value


def checked_scorer(scorer: Scorer | None) -> Scorer | None:
    """Return `scorer`; raise `BadCall` unless it is None or can be called."""
    if scorer is not None and not callable(scorer):
        raise BadCall(f"the scorer is {scorer!r}; it must be a function of question and answers, or None")
    return scorer


def checked_system(system: object) -> str | None:
    """Return `system`; raise `BadCall` unless it is text or None."""
    if system is not None and not isinstance(system, str):
        raise BadCall(f"the system prompt is of type {type(system).__name__}; it must be text (str), or None")
    check_writable("the system prompt", system)
    return system


def check_options(sampling: SamplingOptions, models: Iterable[RegisteredModel]) -> None:
    """Raise `BadCall` if an option has a name that none of `models` takes; the message names the choices.

    Some clients take options of any name. Among these, too, a name that is nearly one of Ultra's own is
    taken for a slip, unless a client declares just that name.
    """
    if not sampling.extra:
        return
    own = set(SamplingOptions.__struct_fields__) - {"extra"}
    taken, takes_any = set(own), False
    for model in models:
        names = model.client.option_names
        takes_any = takes_any or names is None
        taken |= names or set()
    for name in sampling.extra:
        if name in taken or (takes_any and nearest(name, own, cutoff=_NEARLY_THE_SAME) is None):
            continue
        hint = "; give it as system=" if name == "system" else ""
        raise BadCall(
            f"options has {name!r}, which no model of this call takes{hint}; "
            f"they take: {', '.join(sorted(taken))}{did_you_mean(name, taken)}"
            + (" (a client that takes just this name has to declare it)" if takes_any else "")
        )
