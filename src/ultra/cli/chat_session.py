"""One chat: its conversation, its commands, and the run of each question."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ultra.cli.answer_file import AnswerFile
from ultra.cli.asking import Asker
from ultra.cli.attachments import kind_of, paths_from, read_attachment, with_attachments
from ultra.cli.chat_input import open_input
from ultra.cli.history import Asked, History
from ultra.cli.json_output import document, reporting_errors
from ultra.cli.logs import configure_logs
from ultra.cli.output import tell, write, write_wrapped
from ultra.cli.printable_text import one_line
from ultra.cli.report import answer_text
from ultra.cli.session import follow, open_view
from ultra.cli.signals import run_until_signalled
from ultra.errors import BadCall, UltraError
from ultra.messages.chat import ChatMessage, TextPart
from ultra.strategies.catalog import load_strategy, strategy_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ultra.cli.arguments import Question
    from ultra.cli.session import Output
    from ultra.messages.chat import Part
    from ultra.messages.results import OrchestrationResult

__all__ = ["COMMANDS", "Chat"]

COMMANDS: Final = {
    "/models": "[NAME ...]: whom you talk with; with names, only these; with 'all', all of them",
    "/strategy": "[NAME]: how answers are merged; with 'default', as at the beginning",
    "/ensemble": "[NAME]: the ensemble that is asked; with 'none', the models",
    "/attach": "[FILE]: let an image, a PDF or a text go with the next question; with 'none', nothing",
    "/retry": ": ask the last question again, without its answer",
    "/new": ": begin a new conversation",
    "/save": "FILE: write the conversation to a file, as Markdown, or as JSON to FILE.json",
    "/help": ": this list",
    "/quit": ": end the chat, as Ctrl-D",
}


class Chat:
    """A conversation that goes on with its history, until the user ends it.

    The actors run while a question is answered, so that a chat that waits for its user holds nothing open.
    """

    def __init__(self, question: Question, output: Output) -> None:
        self._question = question
        self._first = question
        self._output = output
        self._asker = Asker.of(question)
        self._history = History.of(self._asker, question, by="chat")
        self._messages: list[ChatMessage] = list(question.earlier)
        self._attached: dict[str, Part] = {}  # what goes with the next question, by its name
        self._last: ChatMessage | None = None

    def run(self) -> int:
        """Take questions and commands until the user ends it, and return the exit code."""
        configure_logs(self._output.verbose)
        lines = open_input(self.completions)
        if self._question.sources:
            tell("/help lists the commands")  # whom it talks with has been told
        else:
            tell(f"you talk with {self._asker.described(self._question)}; /help lists the commands")
        while True:
            try:
                line = lines.read()
            except EOFError:
                return 0
            except KeyboardInterrupt:
                continue
            try:
                with reporting_errors(enabled=self._output.as_json):
                    if not self.take(line.strip()):
                        return 0
            except UltraError as error:
                tell(error)

    def take(self, line: str) -> bool:
        """Ask the question, or carry out the command, of a line; return whether the chat goes on.

        Raises what a run raises; a question that failed is not part of the conversation, and can be retried.
        """
        if not line:
            return True
        if not line.startswith("/"):
            self._ask(self._question_of(line))
            return True
        name, _, rest = line.partition(" ")
        if name in {"/quit", "/exit"}:
            return False
        commands: dict[str, Callable[[str], None]] = {
            "/models": self._models,
            "/strategy": self._strategy,
            "/ensemble": self._ensemble,
            "/attach": self._attach,
            "/retry": self._retry,
            "/new": self._new,
            "/save": self._save,
            "/help": self._help,
        }
        if name not in commands:
            raise BadCall(f"there is no command {name}; there are: {', '.join(COMMANDS)}")
        commands[name](rest.strip())
        return True

    def completions(self, line: str) -> Iterator[str]:
        """Yield the whole lines that may become of one that begins with a command."""
        if not line.startswith("/") or "\n" in line:
            return
        name, space, rest = line.partition(" ")
        if not space:
            yield from (command for command in COMMANDS if command.startswith(name))
            return
        orchestrator = self._asker.orchestrator
        choices = {
            "/models": ["all", *orchestrator.get_prioritized_models()],
            "/strategy": ["default", *strategy_names()],
            "/ensemble": ["none", *orchestrator.get_ensembles()],
        }.get(name, [])
        if name in {"/attach", "/save"}:
            yield from (f"{name} {path}" for path in paths_from(rest))
            return
        before, _, word = rest.rpartition(" ")
        start = f"{name} {before} " if before else f"{name} "
        yield from (f"{start}{choice}" for choice in choices if choice.startswith(word))

    def _question_of(self, text: str) -> ChatMessage:
        parts, self._attached = tuple(self._attached.values()), {}
        return ChatMessage("user", (TextPart(text), *parts) if parts else text)

    def _ask(self, question: ChatMessage) -> None:
        self._last = question
        conversation = [*self._messages, question]
        view = open_view(self._output)
        results: list[OrchestrationResult] = []
        self._history.asked = Asked.of(self._question)

        async def ask() -> None:
            # Not entered: the call starts the actors and stops them, and an orchestrator is entered but once.
            stream = self._asker.stream(self._question, conversation)
            results.append(await follow(stream, view, self._history))

        try:
            if run_until_signalled(partial(ask)) is not None or not results:
                tell("stopped; /retry asks again")
                return
            view.conclude(results[0])
        finally:
            run_until_signalled(self._history.write)  # when the answer is there
        answer = results[0].final_synthesis
        if answer is not None:
            self._messages = [*conversation, ChatMessage("assistant", answer_text(answer))]

    def _retry(self, _: str) -> None:
        if self._last is None:
            raise BadCall("nothing was asked yet")
        if len(self._messages) > 1 and self._messages[-2] == self._last:
            del self._messages[-2:]
        before = self._question
        self._question = replace(before, use_cache=False)  # or the answer would be the same
        try:
            self._ask(self._last)
        finally:
            self._question = before

    def _models(self, rest: str) -> None:
        if rest:
            names = (
                None if rest == "all" else tuple(map(self._question.named, rest.replace(",", " ").split()))
            )
            self._asker.orchestrator.get_prioritized_models(names)
            every = tuple(self._asker.orchestrator.get_prioritized_models())
            self._question = replace(self._question, chosen=names or every, ensemble=None)
            self._asker = replace(self._asker, ensemble=None)
        asked = self._asker.described(self._question)
        others = [
            name
            for name in self._asker.orchestrator.get_prioritized_models()
            if name not in asked.partition(": ")[2 if ": " in asked else 0].split(", ")
        ]
        write_wrapped(one_line(f"asked: {asked}"))
        if others:
            write_wrapped(one_line(f"others: {', '.join(others)}"))

    def _strategy(self, rest: str) -> None:
        if rest == "default":
            self._question = replace(self._question, strategy=self._first.strategy)
        elif rest:
            load_strategy(rest)
            self._question = replace(self._question, strategy=rest)
        current, names = self._question.strategy or "default", ", ".join(strategy_names())
        write_wrapped(one_line(f"strategy: {current}; there are {names}"))

    def _ensemble(self, rest: str) -> None:
        known = self._asker.orchestrator.get_ensembles()
        if rest == "none":
            self._question = replace(self._question, ensemble=None)
            self._asker = replace(self._asker, ensemble=None)
        elif rest:
            self._asker.orchestrator.ensemble(rest)
            self._question = replace(self._question, ensemble=rest, chosen=None)
        current = self._question.ensemble or self._asker.ensemble or "none"
        write_wrapped(one_line(f"ensemble: {current}; there are {', '.join(known) or 'none'}"))

    def _attach(self, rest: str) -> None:
        if rest == "none":
            self._attached = {}
        elif rest:
            self._attached[rest] = read_attachment(rest)
        names = ", ".join(f"{name} ({kind_of(part)})" for name, part in self._attached.items())
        write(one_line(f"with the next question: {names or 'nothing'}"))

    def _new(self, _: str) -> None:
        self._messages, self._last, self._attached = [], None, {}
        self._history.conversation = None
        write("a new conversation")

    def _save(self, rest: str) -> None:
        if not rest:
            raise BadCall("/save needs a file: /save talk.md")
        path = Path(rest).expanduser()
        if path.exists():
            raise BadCall(f"{path} is there already; give another name")
        turns = [(message.role, with_attachments(message)) for message in self._messages]
        if path.suffix == ".json":
            text = document([{"role": role, "content": content} for role, content in turns])
        else:
            text = "\n".join(
                f"## {'You' if role == 'user' else 'Answer'}\n\n{content}\n" for role, content in turns
            )
        with AnswerFile(path, "/save") as file:
            file.write(text)
        write(one_line(f"saved to {path}"))

    def _help(self, _: str) -> None:
        for name, told in COMMANDS.items():
            usage, _, meaning = told.partition(": ") if not told.startswith(": ") else ("", "", told[2:])
            write_wrapped(f"{f'{name} {usage}'.strip():22} {meaning}", indent=23)
        write_wrapped("Enter sends, Alt-Enter starts a new line, Ctrl-C stops an answer.")
