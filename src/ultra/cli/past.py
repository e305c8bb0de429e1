"""Going on from the history: with a conversation, or asking its question again."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as with_changes
from typing import TYPE_CHECKING, Any

import msgspec

from ultra.cli.history import Asked
from ultra.cli.journal import default_journal, each_run, find_run, result_of, with_journal
from ultra.cli.report import answer_text
from ultra.config.file import ConfigurationFile
from ultra.errors import BadCall, JournalDamaged, UltraError
from ultra.messages.chat import ChatMessage
from ultra.strategies.catalog import names_a_class, strategy_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.cli.arguments import Question
    from ultra.cli.sources import Source
    from ultra.stores.journal_contract import RunJournal, RunRecord

__all__ = ["Past", "ensemble_or_strategy", "find_past"]


@dataclass(frozen=True)
class Past:
    """A run of the history: what was said in it, without system prompts, and whom it asked."""

    run_id: str
    conversation_id: str
    messages: tuple[ChatMessage, ...]
    answer: ChatMessage | None
    asked: Asked
    schema: dict[str, object] | None
    sampling: dict[str, object]

    @property
    def said(self) -> tuple[ChatMessage, ...]:
        """The conversation so far, with the answer."""
        return self.messages if self.answer is None else (*self.messages, self.answer)

    def continued(self, question: Question) -> Question:
        """Return a question that goes on with the conversation."""
        asked = with_changes(question, earlier=self.said, conversation_id=self.conversation_id)
        return self._as_then(asked)

    def again(self, question: Question) -> Question:
        """Return the question of the run, to be asked again."""
        before = self.messages
        while before and before[-1].role != "user":
            before = before[:-1]
        if not before:
            raise BadCall(f"run {self.run_id} has no question that can be asked again")
        asked = with_changes(question, earlier=before, schema=question.schema or self.schema)
        return self._as_then(asked)

    def like_then(self, question: Question) -> Question:
        """Return a question that is put to those whom the run asked, as far as it does not say it itself."""
        changes: dict[str, Any] = {
            name: getattr(self.asked, name)
            for name in ("chosen", "ensemble", "judge", "samples")
            if getattr(question, name) is None
        }
        if question.strategy is None:
            changes["strategy"] = self.asked.strategy
            changes["stages"] = question.stages or self.asked.stages
            changes["strategy_options"] = {**self.asked.strategy_options, **question.strategy_options}
        return with_changes(question, **changes)

    def _as_then(self, question: Question) -> Question:
        """Return the question with the system prompt and the options of the run, where it has none itself."""
        return with_changes(
            question,
            system=question.system or self.asked.system,
            sampling={**self.sampling, **question.sampling},
        )


def find_past(which: str | None, *, answered: bool) -> Past:
    """Return the run that `which` names; None: the last one of the command. `answered`: with an answer.

    Raises:
        BadCall: there is none.
        UltraError: the journal cannot be read.
    """
    if which is None and not default_journal().is_file():
        raise BadCall("the history is empty; ask something first (ultra log shows what there is)")

    async def find(journal: RunJournal) -> Past | None:
        if which is not None:
            return await _past(journal, await find_run(journal, which))
        async for record in each_run(journal, states=("completed",) if answered else ()):
            if "by" in record.tags:  # one that is damaged has none
                try:
                    past = await _past(journal, record)
                except JournalDamaged:
                    continue
                if past.answer is not None or not answered:
                    return past
        return None

    past = with_journal(None, find)
    if past is None or (answered and past.answer is None):
        what = f"run {which} has no answer" if which else "no answer is in the history yet"
        raise BadCall(f"{what}, so there is nothing to go on with; ultra log shows what there is")
    return past


async def _past(journal: RunJournal, record: RunRecord) -> Past:
    request = record.spec.request
    try:
        asked = msgspec.convert(record.tags.get("asked", {}), Asked)
    except msgspec.ValidationError:
        asked = Asked()  # of a program that has tags of its own
    if asked.system is None and "by" not in record.tags:
        asked = msgspec.structs.replace(asked, system=request.system)
    result = await result_of(journal, record)
    answer = None if result is None else result.final_synthesis
    conversation = record.tags.get("conversation")
    return Past(
        run_id=record.run_id,
        conversation_id=conversation if isinstance(conversation, str) else record.run_id,
        messages=tuple(message for message in request.messages if message.role != "system"),
        answer=None if answer is None else ChatMessage("assistant", answer_text(answer)),
        asked=asked,
        schema=None if request.output is None else request.output.of_value,
        sampling={name: value for name, value in request.options.given().items() if value != "***"},
    )


def ensemble_names(sources: Sequence[Source]) -> list[str]:
    """Return the names of the ensembles in these configurations."""
    names: dict[str, None] = {}
    for source in sources:
        found = ConfigurationFile.read(source.path).table().get("ensembles", {})
        names |= dict.fromkeys(found if isinstance(found, dict) else ())
    return list(names)


def ensemble_or_strategy(name: str, sources: Sequence[Source]) -> dict[str, str]:
    """Return what a name means, as a field of `Question`: an ensemble, or else a strategy.

    Raises:
        BadCall: it is neither.
    """
    try:
        ensembles = ensemble_names(sources)
    except UltraError:
        ensembles = []  # reading the configuration will tell of it
    if name in ensembles:
        return {"ensemble": name}
    if name in strategy_names() or names_a_class(name):
        return {"strategy": name}
    raise BadCall(
        f"--again {name!r} is neither an ensemble nor a strategy; ensembles: "
        f"{', '.join(ensembles) or 'none'}; strategies: {', '.join(strategy_names())}"
    )
