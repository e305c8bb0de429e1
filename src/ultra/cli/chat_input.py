"""The lines of a chat: typed on a terminal, with history and completion, or read from a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from ultra.cli.user_paths import state_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document

__all__ = ["ChatInput", "open_input"]


class ChatInput(Protocol):
    """Where questions come from."""

    def read(self) -> str:
        """Return the next one. Raises `EOFError` at the end, and `KeyboardInterrupt` at Ctrl-C."""
        ...


def open_input(complete: Callable[[str], Iterable[str]]) -> ChatInput:
    """Return the input of a chat; ``complete(line)`` yields the whole lines that may become of one."""
    if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty():
        return _Typed(complete)
    return _Piped()


class _Piped:
    """Each line is a question."""

    def read(self) -> str:
        while sys.stdin is not None and (line := sys.stdin.buffer.readline()):
            if text := line.decode("utf-8-sig", errors="replace").strip():
                return text
        raise EOFError


class _Typed:
    """Lines from a terminal."""

    def __init__(self, complete: Callable[[str], Iterable[str]]) -> None:
        from prompt_toolkit import PromptSession  # noqa: PLC0415 - not for pipes
        from prompt_toolkit.history import FileHistory, InMemoryHistory  # noqa: PLC0415 - as above

        file = _history_file()
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            key_bindings=_keys(),
            history=InMemoryHistory() if file is None else FileHistory(file),
            completer=_completer(complete),
            complete_while_typing=False,
            prompt_continuation="… ",
            mouse_support=False,
        )

    def read(self) -> str:
        return self._session.prompt("> ")


def _history_file() -> Path | None:
    """Return the file of the lines that were typed, which others cannot read; None: it cannot be written."""
    file = state_folder() / "chat_history"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError:
        return None
    return file


def _keys() -> Any:  # noqa: ANN401 - prompt_toolkit's, which is not imported here
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent  # noqa: PLC0415 - not for pipes

    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
            buffer.apply_completion(buffer.complete_state.current_completion)
        elif buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        elif buffer.text.strip():
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _completer(complete: Callable[[str], Iterable[str]]) -> Any:  # noqa: ANN401 - as above
    from prompt_toolkit.completion import Completer, Completion  # noqa: PLC0415 - not for pipes

    class Lines(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:  # noqa: ARG002 - the interface
            line = document.text_before_cursor
            word = line.rpartition(" ")[2]
            for whole in complete(line):
                text = whole[len(line) - len(word) :]
                yield Completion(text, start_position=-len(word))

    return Lines()
