"""The history of the command: each run goes into the user's journal, once its answer is there.

What goes wrong with the journal is told in one line, and changes nothing else: the answer was given before.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio
from msgspec import Struct

from ultra.cli.journal import default_journal
from ultra.cli.kept_text import SecretFilter, known_secrets
from ultra.cli.output import tell
from ultra.cli.sources import own_configuration
from ultra.config.file import ConfigurationFile
from ultra.config.history import HistoryConfig
from ultra.durable.recording import RunRecording
from ultra.errors import JournalUnavailable, UltraError
from ultra.orchestrator.submitted_runs import record_runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ultra.actors.coordinator.messages import AnswerMemo
    from ultra.cli.arguments import Question
    from ultra.cli.asking import Asker
    from ultra.cli.sources import Source
    from ultra.messages.events import Event
    from ultra.messages.runs import RunSpec

__all__ = ["Asked", "History", "history_config"]

_PATIENCE: Final = 2.0
"""Seconds after which a run is given up that the journal does not take."""

_BUSY: Final = 1.0
"""Of these, seconds for another process that writes."""


class Asked(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whom the command asked, and how, as far as its user said it: enough to ask them again."""

    models: tuple[str, ...] = ()
    chosen: tuple[str, ...] | None = None
    ensemble: str | None = None
    strategy: str | None = None
    strategy_options: dict[str, Any] = {}
    stages: tuple[str, ...] | None = None
    judge: str | None = None
    samples: int | None = None
    system: str | None = None

    @classmethod
    def of(cls, question: Question) -> Asked:
        """Return whom a question is put to."""
        models = tuple(f"{model.identifier}@{model.weight:g}" for model in question.models)
        named = {name: getattr(question, name) for name in cls.__struct_fields__ if name != "models"}
        return cls(models=models, **{**named, "strategy_options": dict(question.strategy_options)})


class History:
    """Keeps the runs of one orchestrator in the user's journal; off, it does nothing.

    Args:
        by: the command.
        conversation: the id by which its runs are known to belong together; None: that of the first one.
    """

    def __init__(
        self,
        config: HistoryConfig,
        *,
        by: str,
        asked: Asked,
        conversation: str | None = None,
        secrets: frozenset[str] = frozenset(),
    ) -> None:
        self._config = config
        self._by = by
        self.asked = asked
        self.conversation = conversation
        self._secrets = secrets
        self._recording: RunRecording | None = None
        self._has_begun = False

    @classmethod
    def of(cls, asker: Asker, question: Question, *, by: str) -> History:
        """Return the history of a question, which is on unless the user wants none."""
        config = history_config(question.sources) if question.is_kept else HistoryConfig(enabled=False)
        history = cls(
            config,
            by=by,
            asked=Asked.of(question),
            conversation=question.conversation_id,
            secrets=asker.secrets,
        )
        if config.enabled:
            record_runs(asker.orchestrator, history.begin)
        return history

    def begin(self, run_id: str, spec: RunSpec) -> AnswerMemo:
        """Begin to collect a run."""
        self.conversation = self.conversation or run_id
        tags = {
            "by": self._by,
            "conversation": self.conversation,
            "asked": msgspec.to_builtins(self.asked),
        }
        self._recording = RunRecording(run_id, spec, tags=tags)
        return self._recording.memo

    def take(self, event: Event) -> None:
        """Take the next event of the run."""
        if self._recording is not None:
            self._recording.take(event)

    async def write(self) -> None:
        """Write the run, in two seconds at most, also where this is cancelled; tell what goes wrong."""
        recording, self._recording = self._recording, None
        if recording is None:
            return
        with trio.CancelScope(shield=True), trio.move_on_after(_PATIENCE) as limit:
            try:
                # A trio run of its own in a thread: a file system that hangs cannot be cancelled, only left.
                await trio.to_thread.run_sync(
                    trio.run, partial(self._write, recording), abandon_on_cancel=True
                )
            except (UltraError, OSError) as error:
                _tell_of(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, the answer was given
                _tell_of(f"{type(error).__name__}: {error}")
        if limit.cancelled_caught:
            _tell_of(f"{default_journal()} did not answer within {_PATIENCE:g} s")

    async def _write(self, recording: RunRecording) -> None:
        from ultra.stores.journal_sqlite import SqliteJournal  # noqa: PLC0415 - only now needed

        path = _made_folder(default_journal())
        journal = SqliteJournal(path, retention=self._config.retention, busy_timeout=_BUSY)
        try:
            await recording.write(journal, SecretFilter(self._secrets | known_secrets()))
            if _is_pruning(recording.record.run_id):
                await journal.prune()
        finally:
            await journal.aclose()


def history_config(sources: Sequence[Source]) -> HistoryConfig:
    """Return what the user's own configuration, and those of `sources` on top of it, say of the history.

    The user's own one counts even where it is not used for anything else, such as with ``--model``. Where it
    cannot be read, nothing is kept.
    """
    paths = [own_configuration(), *(source.path for source in sources)]
    found: dict[str, Any] = {}
    try:
        for path in dict.fromkeys(paths):
            if path.is_file():
                found |= _section(ConfigurationFile.read(path).table())
        return msgspec.convert(found, HistoryConfig)
    except (UltraError, msgspec.ValidationError, OSError) as error:
        _tell_of(f"[history] cannot be read: {error}")
        return HistoryConfig(enabled=False)


def _section(table: Mapping[str, Any]) -> dict[str, Any]:
    section = table.get("history", {})
    return section if isinstance(section, dict) else {}


def _made_folder(path: Path) -> Path:
    if not path.is_absolute():
        raise OSError("there is no home directory")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _is_pruning(run_id: str) -> bool:
    """Return whether old runs are looked for after this one: one in sixteen, since it takes time."""
    return run_id.startswith("0")


def _tell_of(error: object) -> None:
    if isinstance(error, JournalUnavailable) and error.__cause__ is not None:
        error = f"{default_journal()}: {error.__cause__}"
    tell(f"this run is not in the history: {error}")
