"""One run for a tool: it is left when the call is cancelled, and progress tells of it as it goes on."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import anyio

from ultra.messages.events import ModelFailed, ModelResponded, StageStarted
from ultra.messages.results import sample_name
from ultra.service.ledger import Ledger
from ultra.service.problems import problem_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultra.messages.events import Event
    from ultra.messages.results import OrchestrationResult
    from ultra.service import access
    from ultra.service.core import Service
    from ultra.service.http import Request
    from ultra.service.metering import MeteredStream

__all__ = ["Caller", "Reporter", "run"]

_MOST_QUOTED: Final = 200
"""Characters of an answer that progress quotes."""


class Reporter(Protocol):
    """Tells the client how far a call is; the client may have asked for nothing of the kind."""

    async def __call__(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Send one notification."""
        ...


class Caller(NamedTuple):
    """Who calls a tool: its request, who that is, and how to tell it how far the call is."""

    request: Request
    who: access.Caller
    report: Reporter


async def run(
    service: Service, caller: Caller, prompt: str, arguments: Mapping[str, Any], *, single: bool = False
) -> OrchestrationResult:
    """Return the result of a run with these arguments of `process_responses`.

    `single`: one model is asked. Cancelling this cancels the run, and with it the calls of providers.

    Raises:
        Problem: the service takes no more requests, an argument is not allowed, or the run failed.
    """
    async with AsyncExitStack() as held:
        await service.admit(caller.request, caller.who, held)
        stream = service.stream_of(prompt, arguments, caller.who, chunks=False)
        ledger = Ledger()
        progress = _Progress(caller.report)
        async with stream:
            while (event := await _next(stream, service.settings.keepalive_interval, progress)) is not None:
                ledger.take(event)
                await progress.tell(event)
            try:
                return await stream.result()
            except Exception as error:  # noqa: BLE001 - told in neutral words
                raise problem_of(error, ledger.failures, paid=ledger.paid, single=single) from None


async def _next(stream: MeteredStream, interval: float, progress: _Progress) -> Event | None:
    """Return the next event; None after the last one. After each silence a sign of life is sent."""
    while True:
        with anyio.move_on_after(interval):
            try:
                return await anext(stream)
            except StopAsyncIteration:
                return None
        await progress.wait()


class _Progress:
    """Turns the events of a run into notifications, and counts these: nobody knows how many there will be."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._sent = 0
        self._asked: tuple[str, ...] = ()
        self._ended: set[str] = set()

    async def tell(self, event: Event) -> None:
        """Send a notification of events that an agent, or who waits for it, wants to see."""
        match event:
            case StageStarted():
                self._asked, self._ended = event.models, set()
                several = len(event.models) > 1
                how = "asking, one after the other," if event.asks == "first" and several else "asking"
                await self._send(f"{event.stage}: {how} {', '.join(event.models)}")
            case ModelResponded():
                response = event.response
                name = sample_name(event.model_name, event.sample)
                self._ended.add(event.model_name)
                text = f"{event.stage}: {name} answered after {response.response_time:.1f} s"
                await self._send(f"{text}: {_quoted(response.content)}")
            case ModelFailed():
                kind = event.failure.kind or event.failure.error
                self._ended.add(event.model_name)
                name = sample_name(event.model_name, event.sample)
                await self._send(f"{event.stage}: {name} failed ({kind})")
            case _:
                pass

    async def wait(self) -> None:
        """Send a sign of life, so that clients which count silence do not give up."""
        waited = [name for name in self._asked if name not in self._ended]
        await self._send(f"waiting for {', '.join(waited)}" if waited else "waiting")

    async def _send(self, message: str) -> None:
        self._sent += 1
        await self._report(self._sent, message=message)


def _quoted(text: str) -> str:
    line = " ".join(text[: 4 * _MOST_QUOTED].split())
    return line if len(line) <= _MOST_QUOTED else f"{line[: _MOST_QUOTED - 1]}…"
