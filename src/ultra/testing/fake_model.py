"""A client that does as the test says, and notes what it was asked."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from msgspec.structs import replace

from ultra._support.checks import check_count, check_seconds
from ultra.errors import BadCall, ModelError
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.testing.any_loop import AnyLoopEvent, sleep
from ultra.testing.script import FakeAnswer, ScriptReader, to_raise

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from types import TracebackType
    from typing import Self

    from ultra.clients.catalog.model_info import ModelInfo
    from ultra.messages.results import Completion, Usage
    from ultra.testing.script import Script

__all__ = ["CallOutcome", "FakeCall", "FakeModel"]

CallOutcome: TypeAlias = Literal["running", "answered", "failed", "cancelled"]
"""What has become of a call. One whose stream is closed before its end counts as cancelled."""


class FakeCall:
    """One call of a fake model.

    Attributes:
        number: 1 for the model's first call.
        request: what it was asked.
        streamed: whether it was asked for a stream.
        outcome: what has become of it.
    """

    def __init__(self, number: int, request: ModelRequest, *, streamed: bool) -> None:
        self.number = number
        self.request = request
        self.streamed = streamed
        self.outcome: CallOutcome = "running"

    def __repr__(self) -> str:
        how = "streamed, " if self.streamed else ""
        return f"<FakeCall {self.number}: {how}{self.outcome}, {self.prompt!r}>"

    @property
    def prompt(self) -> str:
        """The text of the last message of the user."""
        return self.request.prompt

    @property
    def system(self) -> str | None:
        """The system prompt; None where there is none."""
        return self.request.system

    @property
    def options(self) -> SamplingOptions:
        """How the model was to write."""
        return self.request.options


class FakeModel:
    """A client for tests, on trio and on asyncio.

    Without more it answers ``"<name>: <prompt>"`` at once, and streams that word by word::

        FakeModel("Paris.")                                       # the same to each call
        FakeModel(["Paris.", ModelError("down"), "Lyon."])        # one a call
        FakeModel({"France": "Paris.", "Italy": "Rome."})         # by what the prompt contains
        FakeModel(lambda request: request.prompt.upper())         # as a function decides
        FakeModel(FakeAnswer("Par", "is.", piece_seconds=0.5))    # in pieces
        FakeModel("Paris.", seconds=3, usage=Usage(input=7, output=2))

    It can fail, before all that it was told to answer or in the middle of a stream::

        FakeModel("Paris.").fail(times=2, error=ModelError("busy", kind="overloaded"))
        FakeModel("It is Paris.").fail(at=3, after_pieces=2)

    It can wait until the test lets it go on, and tells what it was asked::

        model = FakeModel("Paris.", gated=True)
        nursery.start_soon(orchestrator.process_responses, "Capital of France?")
        await model.asked.wait()
        model.gate.set()
        assert model.calls[0].system is None

    Args:
        answers: what becomes of its calls; see `Script`.
        name: what it is called in its answers and errors, and nowhere else.
        seconds: how long it takes before it answers, for a stream before the first piece; `math.inf`: it
            never answers.
        piece_seconds: how long it takes between two pieces of a stream.
        failures: exceptions that its first calls raise, one a call, before it answers anything.
        usage: the tokens of each answer that does not have its own; None: it reports none, and Ultra
            estimates them.
        streams: whether it can be asked for a stream. False: it has no ``stream``.
        gated: whether its calls wait from the beginning until the test sets `gate`.
        context_window: how many tokens prompt and answer may have together, as Ultra is told.
        info: what else Ultra is told of it, such as ``ModelInfo(tools=False)``.

    Attributes:
        calls: what it was asked, call by call.
        asked: an event that is set with each call; a test may clear it to wait for the next.
        gate: an event; while it is not set, calls wait.
        seconds, piece_seconds: as given; a test may change them.
        running: how many calls run now.
        most_running: how many calls ran at the same time at most.

    A script that has no answer for a call is an error of kind ``bad_request``: it is not retried, and its
    message tells which call and which model.

    Raises:
        BadCall: an argument is not allowed; the message names what is.
    """

    context_window: int | None = None
    info: ModelInfo | None = None

    def __init__(
        self,
        answers: Script | None = None,
        *,
        name: str = "fake",
        seconds: float = 0.0,
        piece_seconds: float = 0.0,
        failures: Iterable[Exception | type[Exception]] = (),
        usage: Usage | None = None,
        streams: bool = True,
        gated: bool = False,
        context_window: int | None = None,
        info: ModelInfo | None = None,
    ) -> None:
        self.name = name
        self.calls: list[FakeCall] = []
        self.asked = AnyLoopEvent()
        self.gate = AnyLoopEvent(is_set=not gated)
        self.running = 0
        self.most_running = 0
        if context_window is not None:
            self.context_window = context_window
        if info is not None:
            self.info = info
        self._script = ScriptReader(name, answers)
        check_seconds("seconds", seconds, endless=True)
        check_seconds("piece_seconds", piece_seconds, endless=True)
        self.seconds = seconds
        self.piece_seconds = piece_seconds
        self._usage = usage
        self._failures: list[_Failure] = []
        self._lock = Lock()  # two loops in two threads may call it
        for error in failures:
            self.fail(error)
        if not streams:
            vars(self).update(stream=None, stream_response=None)

    def __repr__(self) -> str:
        if not self.calls:
            return f"<FakeModel {self.name!r}, not called>"
        counts = [f"{self._count(outcome)} {outcome}" for outcome in _OUTCOMES if self._count(outcome)]
        plural = "call" if len(self.calls) == 1 else "calls"
        return f"<FakeModel {self.name!r}, {len(self.calls)} {plural}: {', '.join(counts)}>"

    # --- what the test reads and says ----------------------------------------------------------------

    @property
    def prompts(self) -> list[str]:
        """The prompt of each call."""
        return [call.prompt for call in self.calls]

    @property
    def cancelled(self) -> int:
        """How many calls were cancelled, closed streams included."""
        return self._count("cancelled")

    def fail(
        self,
        error: Exception | type[Exception] | None = None,
        *,
        times: int | None = None,
        at: int | Iterable[int] | None = None,
        after_pieces: int = 0,
    ) -> Self:
        """Let calls fail, in place of an answer of the script, which stays for a later call.

        Failures that were asked for earlier come first.

        Args:
            error: what they raise; without it, a `ModelError` that a retry may mend.
            times: how many of the next calls; 1 if neither `times` nor `at` is given.
            at: the numbers of the calls; 1 is the model's first.
            after_pieces: how many pieces of its answer a stream hands out before it fails. With this, a
                failing call takes its answer from the script.

        Returns:
            The model itself.

        Raises:
            BadCall: both `times` and `at` are given, or a number is not allowed.
        """
        numbers = None if at is None else frozenset([at] if isinstance(at, int) else at)
        if times is not None and numbers is not None:
            raise BadCall(f"times={times!r} and at={at!r} are given; give one: how many calls, or which")
        for number in numbers or ():
            check_count("the number of a call", number)
        check_count("times", times, optional=True)
        check_count("after_pieces", after_pieces, least=0)
        error = error or ModelError("the test lets this call fail")
        failure = _Failure(error, numbers, after_pieces)
        self._failures += [failure] * (1 if numbers is not None else times or 1)
        return self

    def recover(self) -> None:
        """Let no more calls fail that were to fail by `fail` or by the argument `failures`."""
        self._failures.clear()

    # --- what Ultra calls ----------------------------------------------------------------------------

    async def generate(self, prompt: str, *, system: str | None = None, **options: object) -> Completion:
        """Answer the prompt, or fail, as the test says."""
        return await self.respond(ModelRequest.of(prompt, system, SamplingOptions.of(options)))

    def stream(
        self, prompt: str, *, system: str | None = None, **options: object
    ) -> AsyncGenerator[str | Completion]:
        """Return the answer to the prompt in pieces, with the whole of it last."""
        return self.stream_response(ModelRequest.of(prompt, system, SamplingOptions.of(options)))

    async def respond(self, request: ModelRequest) -> Completion:
        """Answer the request, or fail, as the test says."""
        with _Running(self, request, streamed=False) as call:
            reply, failure = await self._reply_to(call)
            if failure is not None:
                raise to_raise(failure.error)
            return self._completed(reply)

    async def stream_response(self, request: ModelRequest) -> AsyncGenerator[str | Completion]:
        """Yield the pieces of the answer to the request and, last, the whole of it."""
        with _Running(self, request, streamed=True) as call:
            reply, failure = await self._reply_to(call)
            pieces = reply.stream if failure is None else reply.stream[: failure.after_pieces]
            pause = self.piece_seconds if reply.piece_seconds is None else reply.piece_seconds
            for number, piece in enumerate(pieces):
                if number:
                    await sleep(pause)
                yield piece
            if failure is not None:
                if pieces:
                    await sleep(pause)
                raise to_raise(failure.error)
            yield self._completed(reply)

    async def _reply_to(self, call: FakeCall) -> tuple[FakeAnswer, _Failure | None]:
        """Wait as long as the call takes; returns its reply, and what makes it fail."""
        failure = self._next_failure(call.number)
        reply = _NOTHING
        if failure is None or failure.after_pieces:
            answer = await self._script.next(call.request)
            if isinstance(answer, FakeAnswer):
                reply = answer
            else:
                failure = _Failure(answer)
        if not self.gate.is_set():
            await self.gate.wait()
        await sleep(self.seconds if reply.seconds is None else reply.seconds)
        return reply, failure

    def _next_failure(self, number: int) -> _Failure | None:
        for index, failure in enumerate(self._failures):
            if failure.numbers is None:
                return self._failures.pop(index)
            if number in failure.numbers:
                return failure
        return None

    def _completed(self, reply: FakeAnswer) -> Completion:
        completion = reply.completion
        return completion if completion.usage is not None else replace(completion, usage=self._usage)

    def _count(self, outcome: CallOutcome) -> int:
        return sum(call.outcome == outcome for call in self.calls)


_OUTCOMES: tuple[CallOutcome, ...] = ("answered", "failed", "cancelled", "running")
_NOTHING = FakeAnswer()


class _Failure(NamedTuple):
    """What makes a call fail: the next one, or those with these numbers."""

    error: Exception | type[Exception]
    numbers: frozenset[int] | None = None
    after_pieces: int = 0


class _Running:
    """One call from its begin to its end."""

    def __init__(self, model: FakeModel, request: ModelRequest, *, streamed: bool) -> None:
        self._model = model
        with model._lock:  # noqa: SLF001 - a part of the model
            self._call = FakeCall(len(model.calls) + 1, request, streamed=streamed)
            model.calls.append(self._call)
            model.running += 1
            model.most_running = max(model.most_running, model.running)
        model.asked.set()

    def __enter__(self) -> FakeCall:
        return self._call

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._model._lock:  # noqa: SLF001 - a part of the model
            self._model.running -= 1
        if kind is None:
            self._call.outcome = "answered"
        else:
            self._call.outcome = "failed" if issubclass(kind, Exception) else "cancelled"
