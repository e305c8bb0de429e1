"""The core of the service: a whole request goes in; a status, headers and bytes come out.

It knows no web framework and no server. `Service.answering` is all that a door to the network needs.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from ultra._support.log import get_logger
from ultra.clients.http.client import DEPTH_HEADER
from ultra.errors import BadCall, MissingExtra
from ultra.service.access import LocalOnly
from ultra.service.error_shapes import error_body, is_anthropic, request_name
from ultra.service.http import Reply, json_reply
from ultra.service.problems import Problem, problem_of
from ultra.service.routes import find_route
from ultra.service.runs import Runs
from ultra.service.targets import Targets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from ultra.config.serving import ServeConfig
    from ultra.messages.conversation import Conversation
    from ultra.messages.options import Quorum
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
    from ultra.orchestrator.streams import RunStream
    from ultra.service.access import Authenticator
    from ultra.service.http import Request
    from ultra.strategies.base import Strategy

__all__ = ["Service"]


_log = get_logger("ultra.service")


class Service:
    """Answers requests by the models and ensembles of an orchestrator.

    Args:
        orchestrator: is entered by `running`.
        settings: how it behaves.
        strategy: of ensembles that name none; None: ``synthesize``.
        quorum, timeout: of runs that name none; `timeout` by default that of the settings.
        access: decides who may ask; None: whoever is on this machine.

    Attributes:
        runs: the runs under way.
        started_at: when it was made, in seconds of Unix time.
        is_draining: whether it takes no more requests.
    """

    runs: Runs

    def __init__(
        self,
        orchestrator: MultiLLMOrchestrator,
        settings: ServeConfig,
        *,
        strategy: Strategy | None = None,
        quorum: Quorum = 1,
        timeout: float | None = None,
        access: Authenticator | None = None,
    ) -> None:
        self.orchestrator = orchestrator
        self.settings = settings
        self.targets = Targets(orchestrator, strategy)
        self.quorum: Quorum = quorum
        self.access: Authenticator = access or LocalOnly()
        self._timeout = settings.timeout if timeout is None else timeout
        self.started_at = int(time.time())
        self.is_draining = False
        self._active = 0
        self._all_answered: anyio.Event | None = None

    @property
    def ensembles(self) -> list[str]:
        """The names of its ensembles."""
        return self.targets.ensembles()

    @property
    def running_requests(self) -> int:
        """How many requests that ask models are under way."""
        return self._active

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the models' actors, and keep them for the block; runs under way at its end are cancelled."""
        async with self.orchestrator, anyio.create_task_group() as tasks:
            self.runs = Runs(tasks, self.settings)
            try:
                yield
            finally:
                await self.runs.close()
                tasks.cancel_scope.cancel()

    async def drain(self, grace: float) -> None:
        """Refuse new requests, and wait, at most `grace` seconds, until those under way are answered."""
        self.is_draining = True
        with anyio.move_on_after(grace):
            while self._active:
                self._all_answered = anyio.Event()
                await self._all_answered.wait()

    @asynccontextmanager
    async def answering(self, request: Request) -> AsyncIterator[Reply]:
        """Answer a request. The reply is sent within the block; leaving that early cancels what it asked for.

        Whatever goes wrong is a reply, too.
        """
        async with AsyncExitStack() as held:
            try:
                reply = await self._answer(request, held)
            except Problem as problem:
                reply = self.refusal(problem, request.path, request.headers)
            except Exception as error:  # noqa: BLE001 - the client gets an answer, whatever it is
                _log.error("request failed", path=request.path, exc_info=error)
                reply = self.refusal(problem_of(error), request.path, request.headers)
            yield named(reply, request)

    def refusal(self, problem: Problem, path: str, headers: Mapping[str, str]) -> Reply:
        """Return the reply that tells of a problem, in the shape of the protocol of this address."""
        name = request_name(headers)
        body = error_body(problem, path, headers, name)
        return json_reply(body, problem.status, {**problem.headers, "x-request-id": name})

    def stream_of(self, prompt: Conversation, arguments: Mapping[str, Any], who: str) -> RunStream:
        """Return the run of these arguments of `process_responses`, for the one who asks.

        Raises:
            Problem: an argument is not allowed.
        """
        given = dict(arguments)
        longest = max([self.settings.timeout, self._timeout, *self._timeouts()])
        timeout = given.get("timeout")
        if isinstance(timeout, (int, float)) and timeout > longest:
            text = f"the timeout is {timeout:g} s; a run of this service may take {longest:g} s at most"
            raise Problem.bad_request(text, param="timeout")
        given["timeout"] = self._timeout if timeout is None else timeout
        if who:
            given["scope"] = who  # nobody gets what was answered to others
        try:
            return self.orchestrator.stream_responses(prompt, **given)
        except (BadCall, MissingExtra) as error:
            raise problem_of(error) from None

    def _timeouts(self) -> list[float]:
        ensembles = self.orchestrator.get_ensembles().values()
        return [each.arguments["timeout"] for each in ensembles if "timeout" in each.arguments]

    async def _answer(self, request: Request, held: AsyncExitStack) -> Reply:
        route = find_route(request)
        who = "" if route.access == "open" else await self.access.authenticate(request)
        if route.access == "work":
            self._admit(request, held)
        found = route.answer(self, request, who, held)
        return found if isinstance(found, Reply) else await found

    def _admit(self, request: Request, held: AsyncExitStack) -> None:
        """Count a request that asks models; refuse it if it must not be taken now."""
        if self.is_draining:
            text = "the service is ending; ask again in a moment, or elsewhere"
            raise Problem(503, "overloaded_error", "shutting_down", text, retry_after=1.0)
        if self._active >= self.settings.max_running:
            text = "the service answers as many requests as it may at once; ask again in a moment"
            raise Problem(503, "overloaded_error", "overloaded", text, retry_after=1.0)
        if request.headers.get(DEPTH_HEADER, "0").strip() not in {"0", ""}:
            text = "this request comes from a service of Ultra; ensembles that ask each other might never end"
            raise Problem.bad_request(text, code="recursion_refused")
        self._active += 1
        held.callback(self._release)

    def _release(self) -> None:
        self._active -= 1
        if not self._active and self._all_answered is not None:
            self._all_answered.set()


def named(reply: Reply, request: Request) -> Reply:
    """Return the reply with the name of the request: the client's own, or a new one."""
    name = reply.headers.get("x-request-id") or request_name(request.headers)
    headers = {**reply.headers, "x-request-id": name}
    if is_anthropic(request.path, request.headers):
        headers["request-id"] = name
    return Reply(status=reply.status, headers=headers, body=reply.body)
