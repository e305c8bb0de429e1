"""The core of the service: a whole request goes in; a status, headers and bytes come out.

It knows no web framework and no server. `Service.answering` is all that a door to the network needs.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from ultra._support.async_library import open_tasks
from ultra._support.log import get_logger
from ultra.clients.http.client import DEPTH_HEADER
from ultra.errors import (
    BadCall,
    IdempotencyConflict,
    JournalUnavailable,
    MissingExtra,
    UnknownRun,
    UsageError,
    text_of,
)
from ultra.messages.chat import ChatMessage, FilePart, ImagePart
from ultra.messages.conversation import conversation_of
from ultra.messages.model_options import model_options_of
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.messages.tokens import estimate_request, estimate_tokens
from ultra.service.access import Caller
from ultra.service.batches.running import Batches
from ultra.service.costs import Cost, Prices
from ultra.service.error_shapes import error_body, is_anthropic, request_name
from ultra.service.estimates import estimate
from ultra.service.generation import Actors, Generation
from ultra.service.http import Reply, json_reply
from ultra.service.kept_run import KeptRun
from ultra.service.metering import MeteredStream, carry_on
from ultra.service.problems import Problem, problem_of
from ultra.service.quotas import Quotas
from ultra.service.routes import find_route, route_name
from ultra.service.runs import Runs
from ultra.service.watch import RequestCounters
from ultra.service.webhooks.sending import Webhooks
from ultra.stores.memory_limits import MemoryLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from anyio.abc import TaskGroup

    from ultra.config.loading import Configuration
    from ultra.config.serving import ServeConfig
    from ultra.messages.conversation import Conversation
    from ultra.messages.options import Quorum
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
    from ultra.service.access import Authenticator
    from ultra.service.http import Request
    from ultra.service.kept_run import Keeping
    from ultra.service.metering import Stream
    from ultra.service.quotas import Admission, Place
    from ultra.service.targets import Targets
    from ultra.service.watch import WatchedRequest
    from ultra.stores.contracts import SharedLimits
    from ultra.stores.journal_contract import RunJournal
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
        access: decides who may ask; None: who has one of the keys of the settings, or if there are none,
            whoever is on this machine.
        limits: where rates and budgets are kept; None: in memory.
        journal: where the orchestrator keeps runs, for those that take its place after a reload.
        configuration: what all this was made of, if it was a file.

    Attributes:
        runs: the runs under way.
        counters: of requests.
        started_at: when it was made, in seconds of Unix time.
        is_draining: whether it takes no more requests.
    """

    runs: Runs
    _tasks: TaskGroup

    def __init__(
        self,
        orchestrator: MultiLLMOrchestrator,
        settings: ServeConfig,
        *,
        strategy: Strategy | None = None,
        quorum: Quorum = 1,
        timeout: float | None = None,
        access: Authenticator | None = None,
        limits: SharedLimits | None = None,
        journal: RunJournal | None = None,
        configuration: Configuration | None = None,
    ) -> None:
        self.generation = Generation(
            Actors(orchestrator),
            settings,
            strategy=strategy,
            quorum=quorum,
            timeout=timeout,
            access=access,
            configuration=configuration,
        )
        self.quotas = Quotas(limits or MemoryLimits())
        self.started_at = int(time.time())
        self.is_draining = False
        self.counters = RequestCounters(route_name)
        self.given_access = access
        self.journal = journal
        self.batches = Batches(self)
        self._lives: TaskGroup | None = None
        self._active = 0
        self._all_answered: anyio.Event | None = None

    @property
    def orchestrator(self) -> MultiLLMOrchestrator:
        """The orchestrator that runs are begun on."""
        return self.generation.actors.orchestrator

    @property
    def settings(self) -> ServeConfig:
        """How it behaves."""
        return self.generation.settings

    @property
    def access(self) -> Authenticator:
        """What decides who may ask."""
        return self.generation.access

    @property
    def quorum(self) -> Quorum:
        """The quorum of runs that name none."""
        return self.generation.quorum

    @property
    def all_targets(self) -> Targets:
        """All that can be asked for, whoever asks."""
        return self.generation.targets

    @property
    def ensembles(self) -> list[str]:
        """The names of its ensembles."""
        return self.all_targets.ensembles()

    def targets_for(self, caller: Caller) -> Targets:
        """Return what a caller may ask for."""
        return self.all_targets.of(caller)

    @property
    def running_requests(self) -> int:
        """How many requests that ask models are under way."""
        return self._active

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the models' actors, and keep them for the block; runs under way at its end are cancelled."""
        async with aclosing(self.quotas), anyio.create_task_group() as lives:
            await lives.start(self.generation.actors.live)
            self._lives = lives
            try:
                async with anyio.create_task_group() as tasks, open_tasks() as runs:
                    self._tasks = tasks
                    self.runs = Runs(runs, self.settings)
                    tasks.start_soon(self.runs.reminders.work)
                    tasks.start_soon(self.quotas.keep)
                    tasks.start_soon(Webhooks(self).work)
                    tasks.start_soon(self.batches.work)
                    tasks.start_soon(self.quotas.keep_connected)
                    try:
                        yield
                    finally:
                        await self.runs.close()
                        runs.cancel_scope.cancel()
                        tasks.cancel_scope.cancel()
            finally:
                self._lives = None
                self.generation.actors.retire()

    async def adopt(self, generation: Generation) -> None:
        """Let another configuration hold from now on. Runs under way go on with what they began with.

        Raises what starting its actors raises; then nothing has changed.
        """
        old = self.generation
        if generation.actors is not old.actors:
            if self._lives is None:
                raise BadCall("the service does not run; there is nothing to reload")
            await self._lives.start(generation.actors.live)
            old.actors.retire()
        self.generation = generation
        self.runs.settings = generation.settings

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
            name, observers = request_name(request.headers), self.orchestrator.observers
            watched = held.enter_context(self.counters.watching(request, name, observers))
            left: dict[str, str] = {}
            try:
                reply = await self._answer(request, held, watched, left)
            except Problem as problem:
                reply = self.refusal(problem, request.path, request.headers, name)
            except (IdempotencyConflict, JournalUnavailable, UnknownRun) as error:
                _log.warning("request refused", path=request.path, error=text_of(error))
                reply = self.refusal(problem_of(error), request.path, request.headers, name)
            except Exception as error:  # noqa: BLE001 - the client gets an answer, whatever it is
                _log.error("request failed", path=request.path, exc_info=error)
                reply = self.refusal(problem_of(error), request.path, request.headers, name)
            watched.status = reply.status
            reply = named(reply, request, name, left)
            del request  # a stream may go on for long, and was read
            yield reply

    def refusal(
        self, problem: Problem, path: str, headers: Mapping[str, str], name: str | None = None
    ) -> Reply:
        """Return the reply that tells of a problem, in the shape of the protocol of this address."""
        name = name or request_name(headers)
        body = error_body(problem, path, headers, name)
        return json_reply(body, problem.status, {**problem.headers, "x-request-id": name})

    async def known(self, request: Request) -> Request:
        """Return a request with its caller; its body need not be there yet.

        Raises:
            Problem: there is no such address, or nobody who may ask for it.
        """
        if request.caller is not None or find_route(request).access == "open":
            return request
        return replace(request, caller=await self.access.authenticate(request))

    def stream_of(
        self,
        prompt: Conversation,
        arguments: Mapping[str, Any],
        caller: Caller,
        keeping: Keeping | None = None,
        *,
        chunks: bool = True,
    ) -> MeteredStream:
        """Return the run of these arguments of `process_responses`, for the one who asks.

        With `keeping`, it is kept in the journal, if it can be. Without `chunks`, its reader wants no text
        before it is whole, and models are asked for whole answers, unless the journal has other readers.

        Raises:
            Problem: an argument is not allowed.
        """
        generation = self.generation
        given = dict(arguments)
        longest = max([self.settings.timeout, generation.timeout, *self._timeouts()])
        timeout = given.get("timeout")
        if isinstance(timeout, (int, float)) and timeout > longest:
            text = f"the timeout is {timeout:g} s; a run of this service may take {longest:g} s at most"
            raise Problem.bad_request(text, param="timeout")
        given["timeout"] = generation.timeout if timeout is None else timeout
        if caller.name and not self.settings.share_cache:
            given["scope"] = caller.name  # nobody gets what was answered to others
        try:
            messages = _messages_of(prompt)
            _check_attachments(messages, self.settings.max_image)
            stream = self._stream_of(prompt, given, caller, keeping, chunks=chunks)
            cost, tokens = self._estimate(messages, given) if caller.key is not None else (Cost(), 0)
        except (BadCall, MissingExtra) as error:
            raise problem_of(error) from None
        generation.actors.begin_run()
        return MeteredStream(
            stream,
            caller,
            self.quotas,
            self._prices(),
            prompt=tokens,
            estimate=cost,
            unseen=None if chunks or isinstance(stream, KeptRun) else partial(self._unseen, given),
            on_end=generation.actors.end_run,
        )

    def _stream_of(
        self,
        prompt: Conversation,
        given: Mapping[str, Any],
        caller: Caller,
        keeping: Keeping | None,
        *,
        chunks: bool,
    ) -> Stream:
        orchestrator = self.orchestrator
        if keeping is not None and (keeping.must or orchestrator.has_journal):
            try:
                prepared = orchestrator.prepare_run(prompt, **given)
                if not keeping.must:
                    prepared.check_values(keeping.tags)
                return KeptRun(orchestrator, prepared, keeping, owner=caller.name or None)
            except UsageError:
                if keeping.must:
                    raise
        # Where a strategy is no value, or for the error of what is not allowed at all.
        return orchestrator.stream_responses(prompt, **given, chunks=chunks)

    async def begin(self, stream: MeteredStream, place: Place | None = None) -> str:
        """Let a kept run go on by itself, and return its id once it is in the journal.

        It counts for the limits of its caller until it ends, and its `place` is taken so long.

        Raises what entering the stream does. Cancelled, the run is in the journal nevertheless.
        """
        run_id = ""
        with anyio.CancelScope(shield=True):
            run_id = await self._tasks.start(partial(carry_on, stream, place))
        return run_id  # noqa: RET504 - pyright takes it that the scope may swallow an error

    def _estimate(self, messages: Sequence[ChatMessage], given: Mapping[str, Any]) -> tuple[Cost, int]:
        tokens = estimate_request(ModelRequest(messages=tuple(messages)))
        tokens += sum(estimate_tokens(str(given.get(name) or "")) for name in ("system", "tools", "output"))
        panel = self.orchestrator.get_prioritized_models(given.get("models"))
        settings, judge = self._settings(given), self.orchestrator.run_defaults.judge
        return estimate(tokens, settings, panel, self._prices(), longest=self._longest, judge=judge), tokens

    def _settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a run, with what they leave to the orchestrator."""
        defaults = self.orchestrator.run_defaults.options
        named = {name: value for name, value in given.items() if value is not None}
        whole = {"samples": defaults.samples, "max_cost": defaults.max_cost}
        return {**whole, "options": defaults.sampling, "per_model": defaults.per_model, **named}

    def _longest(self, model: str, options: SamplingOptions) -> int:
        """Return how many tokens a model may write with these options, or is taken to write."""
        return self.orchestrator.longest_answer(model, options, self.settings.assumed_tokens)

    def _unseen(self, given: Mapping[str, Any], model: str) -> int:
        """Return how many tokens an answer of a model may have in a run with these arguments."""
        settings = self._settings(given)
        options, own = SamplingOptions.of(settings["options"]), model_options_of(settings["per_model"])
        return self._longest(model, own[model].over(options) if model in own else options)

    def _prices(self) -> Prices:
        orchestrator = self.orchestrator
        return Prices(lambda name: orchestrator.get_model_info(name).price, self.settings.assumed_price)

    def _timeouts(self) -> list[float]:
        ensembles = self.orchestrator.get_ensembles().values()
        return [each.arguments["timeout"] for each in ensembles if "timeout" in each.arguments]

    async def _answer(
        self, request: Request, held: AsyncExitStack, watched: WatchedRequest, left: dict[str, str]
    ) -> Reply:
        route = find_route(request)
        request = await self.known(request)
        caller = request.caller or Caller()
        watched.asked_by(caller.name)
        if route.access == "work":
            admission = await self.admit(request, caller, held)
            left.update(admission.headers)
            request = replace(request, place=admission.place)
        found = route.answer(self, request, caller, held)
        return found if isinstance(found, Reply) else await found

    async def admit(self, request: Request, caller: Caller, held: AsyncExitStack) -> Admission:
        """Count a request that asks models, until `held` is closed; return its place, and what is left.

        Raises:
            Problem: it must not be taken now.
        """
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
        return await self.quotas.admit(caller, held)

    def _release(self) -> None:
        self._active -= 1
        if not self._active and self._all_answered is not None:
            self._all_answered.set()


def named(reply: Reply, request: Request, name: str, more: Mapping[str, str]) -> Reply:
    """Return the reply with `more` headers, and the name of the request."""
    headers = {**more, **reply.headers, "x-request-id": name}
    if is_anthropic(request.path, request.headers):
        headers["request-id"] = name
    return Reply(status=reply.status, headers=headers, body=reply.body)


def _messages_of(prompt: Conversation) -> Sequence[ChatMessage]:
    if isinstance(prompt, tuple):
        messages = [each for each in prompt if isinstance(each, ChatMessage)]
        if len(messages) == len(prompt):
            return messages
    return conversation_of(prompt)


def _check_attachments(messages: Sequence[ChatMessage], most: int) -> None:
    for index, message in enumerate(messages):
        for part in () if isinstance(message.content, str) else message.content:
            data = part.data if isinstance(part, ImagePart | FilePart) else None
            if data is not None and len(data) > most:
                text = f"messages[{index}] has an image or document of {len(data):,} bytes; at most {most:,}"
                raise Problem(413, "invalid_request_error", "image_too_large", text, param="messages")
