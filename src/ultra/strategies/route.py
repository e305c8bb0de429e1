"""Choose who is asked: by a function of the question, or by a cheap model that reads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from msgspec import Struct

from ultra._support.checks import check_count, shown
from ultra.bridge.interruption import is_interruption
from ultra.errors import BadCall, QuorumNotReached, StageFailed
from ultra.messages.request import ModelRequest
from ultra.strategies.base import Answer, models_check
from ultra.strategies.panel import check_model_name, check_named

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ultra.messages.results import ModelResponse
    from ultra.strategies.base import Model, RunContext, Strategy, Write

__all__ = ["Choose", "Route"]

Choose = Callable[[str], str | Sequence[str]]
"""Says of a question which models are asked: a name, or several."""

_KEPT: Final = 0.8
_SHORT: Final = 2
"""A name of so few characters is also a word, or its beginning: it must stand there to the letter."""
_SYSTEM: Final = (
    "You choose which models answer a question. You do not answer it yourself. Reply with the names of the "
    "models and nothing else, the best one first."
)


class Route(Struct, frozen=True, kw_only=True):
    """Choose the models that are asked; one of them answers alone, several by another strategy.

    `choose` is a function of the question that gives the name of a model, or several. `chooser` is a cheap
    model of the run that reads the question and names up to `most` of the others; `about` tells it what each
    is good at. Exactly one of the two is given. `strategy` (its name) and its `options` say how several are
    asked. If a model that was chosen alone fails, the others stand in for it by weight. If the chooser names
    nobody, the heaviest models are asked; both degrade the result.

    Raises:
        BadCall: an option is not allowed.
    """

    choose: Choose | None = None
    chooser: str | None = None
    about: dict[str, str] = {}
    most: int = 1
    strategy: str = "vote"
    options: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if self.choose is not None and not callable(self.choose):
            raise BadCall(f"choose is {self.choose!r}; it must be a function of the question, or None")
        check_model_name("chooser", self.chooser)
        if (self.choose is None) == (self.chooser is None):
            raise BadCall(
                "route needs one of choose=, a function of the question, and chooser=, a model's name"
            )
        check_count("most", self.most)
        about: object = self.about
        if not isinstance(about, dict) or not all(isinstance(text, str) for text in about.values()):
            raise BadCall(
                f"about is {shown(about)}; it must be a mapping from models to what they are good at"
            )
        options: object = self.options
        if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
            raise BadCall(f"options is {shown(options)}; it must be a mapping from options to values")
        self._nested()

    def check_models(self, asked: Sequence[str], registered: Collection[str]) -> None:
        """Check the names in the options; see `ChecksModels.check_models`."""
        check_named("chooser", [self.chooser], asked)
        check_named("about", self.about, registered)
        check = models_check(self._nested())
        if check is not None:
            check(asked, registered)

    async def run(self, context: RunContext) -> Answer:
        """Choose, and ask those who were chosen; see `Strategy.run`."""
        names = self._chosen(context) if self.choose is not None else await self._named_by_model(context)
        chosen = [model for name in names for model in context.models if model.name == name]
        if len(chosen) > 1:
            narrowed = cast("RunContext", _Narrowed(context, chosen))
            try:
                return await self._nested().run(narrowed)
            except QuorumNotReached:
                others = [model for model in context.models if model not in chosen]
                if not others or context.options.quorum == "all":
                    raise
            with context.step("initial", 1):
                answer = await context.ask_first(context.request, models=others, required=True)
            if answer is None:
                raise _unpaid(chosen)
            context.degrade(f"none of those who were chosen answered; {answer.model_name!r} did")
            return Answer(answer, "fallback")
        others = [model for model in context.models if model not in chosen and model.name != self.chooser]
        with context.step("initial") as step:
            answer = await context.ask_first(context.request, models=[*chosen, *others], required=True)
        if answer is None:
            raise _unpaid(chosen)
        if step.failures and answer.model_name != chosen[0].name:
            context.degrade(f"{chosen[0].name!r} was chosen and failed; {answer.model_name!r} answered")
            return Answer(answer, "fallback")
        return Answer(answer, "primary")

    def _nested(self) -> Strategy:
        from ultra.strategies.catalog import make_strategy  # noqa: PLC0415 - it knows this module

        if self.strategy == "route":
            raise BadCall("the strategy of route is 'route'; give another one")
        return make_strategy(self.strategy, self.options)

    def _chosen(self, context: RunContext) -> list[str]:
        """Return the names that the caller's function gives. Raises `StageFailed` where it fails."""
        try:
            given: object = context.call_user(cast("Choose", self.choose), context.request.prompt)
            names = [given] if isinstance(given, str) else given
            if (
                not isinstance(names, (list, tuple))
                or not names
                or not all(isinstance(name, str) for name in names)
            ):
                raise TypeError(f"it gave {shown(given)}; it must give the name of a model, or several")  # noqa: TRY301
            check_named("choose", names, [model.name for model in context.models])
        except BaseException as error:
            if is_interruption(error):
                raise
            raise StageFailed("route", "the choice", error) from error
        return list(dict.fromkeys(names))

    async def _named_by_model(self, context: RunContext) -> list[str]:
        """Return the names that the chooser writes; the heaviest models where it names nobody."""
        choosers = [model for model in context.models if model.name == self.chooser]
        others = [model for model in context.models if model.name != self.chooser] or choosers
        if len(others) == 1:
            return [others[0].name]
        with context.step("route"):
            reply = await context.ask_first(
                self._question(context, others), models=choosers, within=context.time_left(_KEPT)
            )
        names = [] if reply is None else _names_in(reply.content, [model.name for model in others])
        if not names:
            context.degrade(f"{self.chooser!r} named none of the models; the heaviest are asked")
            names = [model.name for model in others]
        context.note(f"chosen: {', '.join(map(repr, names[: self.most]))}")
        return names[: self.most]

    def _question(self, context: RunContext, others: Sequence[Model]) -> ModelRequest:
        listed = "\n".join(
            f"- {model.name}" + (f": {self.about[model.name]}" if model.name in self.about else "")
            for model in others
        )
        number = "one model" if self.most == 1 else f"up to {self.most} models"
        question = context.request.prompt
        text = f"Question: {question}\n\nModels:\n{listed}\n\nName {number} to answer the question."
        return ModelRequest.of(text, _SYSTEM)


def _unpaid(chosen: Sequence[Model]) -> QuorumNotReached:
    """Make the error of a run whose budget is used up before anybody has answered."""
    unasked = {model.name: f"{model.name!r} was not asked: the budget is used up" for model in chosen}
    return QuorumNotReached("initial", 1, 0, unasked.items())


def _names_in(text: str, names: Iterable[str]) -> list[str]:
    """Return the names that stand in a text, in their order there; in other letters where that is clear."""
    longest_first = sorted(names, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])", re.IGNORECASE)
    meant: dict[str, list[str]] = {}
    for name in longest_first:
        meant.setdefault(name.casefold(), []).append(name)
    found: dict[str, None] = {}
    for match in pattern.finditer(text):
        same = meant.get(match[0].casefold(), [])
        if match[0] in same or (len(same) == 1 and len(match[0]) > _SHORT):
            found[match[0] if match[0] in same else same[0]] = None
    return list(found)


class _Narrowed:
    """A run whose models are those that were chosen; all else is the run's own."""

    def __init__(self, context: RunContext, models: Sequence[Model]) -> None:
        names = {model.name for model in models}
        self._context = context
        self.models = [model for model in context.models if model.name in names]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a run has
        return getattr(self._context, name)

    async def ask_all(
        self,
        write: Write,
        *,
        models: Sequence[Model] | None = None,
        **how: Any,  # noqa: ANN401 - as that of the run
    ) -> list[ModelResponse]:
        """Ask those who were chosen; see `RunContext.ask_all`."""
        return await self._context.ask_all(write, models=self.models if models is None else models, **how)

    async def ask_first(
        self,
        write: Write,
        *,
        models: Sequence[Model] | None = None,
        **how: Any,  # noqa: ANN401 - as above
    ) -> ModelResponse | None:
        """Ask those who were chosen, one after the other; see `RunContext.ask_first`."""
        return await self._context.ask_first(write, models=self.models if models is None else models, **how)
