"""The process of a placed model, from the outside: one Ray actor, from its start to its end.

Nothing here blocks trio: what Ray does at once may still take its time, so it is done in a thread, and what
comes later is a future, for which a task waits that can be cancelled.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import cache, partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

import ray
import trio
from outcome import Error
from ray.exceptions import RayActorError, RayError, RayTaskError

from ultra.bridge.futures import call_when_done, result_of
from ultra.cluster.ray.connecting import connect_program
from ultra.cluster.ray.errors_between import unpacked
from ultra.cluster.ray.host import ModelHost
from ultra.errors import ClientCrashed, ModelError, text_of, title_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from outcome import Outcome

__all__ = ["ModelProcess"]

MOST_TASKS: Final = 16_384
"""How many methods of the Ray actor may run at once: some for each request that a model actor handles."""

STOP_TIMEOUT: Final = 3.0
"""Seconds that the client may take to close, before its process is killed."""

_LONGEST_REASON: Final = 600
"""Characters of what Ray says of a death."""

_ADVICE: Final = " Some common causes include"
"""With this, it goes on for long."""


class ModelProcess:
    """One Ray actor that holds a client. For tasks of the trio run in which it was made.

    Args:
        made: pickled, a function that makes the client there.
        options: of the Ray actor.
        start_timeout: how long it may take to get ready [s]: to find a machine, and to make the client.
        connect_to: the address of the cluster, if the program may have to be connected to it.

    Attributes:
        token: the trio run that it belongs to.
        listeners: the actors that it runs for, each with what is called if the process breaks down and nobody
            hears of it otherwise.
        is_new: whether it was never launched.
    """

    def __init__(
        self, made: bytes, options: dict[str, Any], start_timeout: float, connect_to: str | None = None
    ) -> None:
        self.token = trio.lowlevel.current_trio_token()
        self.listeners: dict[object, Callable[[ClientCrashed], None]] = {}
        self.is_new = True
        self._made = made
        self._options = options
        self._start_timeout = start_timeout
        self._connect_to = connect_to
        self._actor: Any = None
        self._deadline = inf
        self._settled = trio.Event()  # it is ready, or never will be
        self._ended = trio.Event()
        self._is_watched = False  # so that `_ended` is set
        self._crash: ClientCrashed | None = None
        self._is_told = False  # whether anybody has heard of the crash
        self._users = 0  # calls under way, and tasks that wait until it is ready
        self._stopping = False

    @property
    def has_crashed(self) -> bool:
        """Whether it has broken down."""
        return self._crash is not None

    # --- its life ------------------------------------------------------------------------------------

    async def launch(self) -> None:
        """Have Ray start the process, without waiting until it is ready.

        Raises:
            ClientCrashed: Ray does not even try.
        """
        self.is_new = False
        try:
            await connect_program(self._connect_to)
            created = await trio.to_thread.run_sync(self._create, abandon_on_cancel=True)
        except BaseException as error:
            self._is_told = True  # by what is raised; others who wait hear of it as of any crash
            self._settled.set()
            if isinstance(error, Exception):
                self._broke_down(_crashed("Ray starts no process for the model", text_of(error), error))
                self.check()
            self._broke_down(ClientCrashed("the start of the process of the model was cancelled"))
            raise
        ran, ready = created
        self._is_watched = True
        self._deadline = trio.current_time() + self._start_timeout
        call_when_done(ran, self._has_ended)
        call_when_done(ready, self._is_ready)

    def _create(self) -> tuple[Future[None], Future[bytes]]:
        """In a thread: make the Ray actor, and end it if it is not wanted any more when it is there."""
        actor = self._actor = _host_class().options(**self._options).remote(self._made)
        futures = actor.run.remote().future(), actor.ready.remote().future()
        if self._stopping:  # `stop` may have found no actor yet, and Ray ends none that has something to do
            ray.kill(actor, no_restart=True)
        return futures

    async def until_ready(self) -> None:
        """Wait until calls can be made. Raises `ClientCrashed` if it does not get ready in time."""
        with self.in_use():
            if not self._settled.is_set():
                with trio.move_on_at(self._deadline) as scope:
                    await self._settled.wait()
                if scope.cancelled_caught:
                    self._broke_down(self._late())
            self.check()

    async def stop(self) -> None:
        """End the process. The client is closed first, but it is waited for 3 seconds at most."""
        self._stopping = True
        actor, self._actor = self._actor, None
        if actor is None or not ray.is_initialized():
            return
        if self._is_watched and not self._ended.is_set():
            with trio.move_on_after(STOP_TIMEOUT), suppress(RayError):
                await result_of(actor.stop.remote().future())
                await self._ended.wait()
        with suppress(RayError):
            await trio.to_thread.run_sync(partial(ray.kill, actor, no_restart=True))

    def _is_ready(self, outcome: Outcome[bytes]) -> None:
        if not self._stopping and isinstance(outcome, Error):
            self._broke_down(_reason(outcome.error))
        elif not self._stopping and (failure := outcome.unwrap()):
            error = unpacked(failure)
            cause = error.__cause__ or error
            self._broke_down(_crashed("the client of the model cannot be made", title_of(cause), cause))
        self._settled.set()

    def _has_ended(self, outcome: Outcome[None]) -> None:
        if not self._stopping:
            error = outcome.error if isinstance(outcome, Error) else RuntimeError("it has ended by itself")
            self._broke_down(_reason(error))
        self._ended.set()
        self._settled.set()

    def _late(self) -> ClientCrashed:
        wanted = ", ".join(f"{name}={value!r}" for name, value in self._options.items())
        return ClientCrashed(
            f"the process of the model was not ready within {self._start_timeout:g} s ({wanted}): either no "
            "machine of the cluster has what it needs, or the client takes longer to be made"
        )

    # --- its end, if it is a crash -------------------------------------------------------------------

    def check(self) -> None:
        """Raise `ClientCrashed` if the process has broken down."""
        if self._crash is not None:
            raise ClientCrashed(*self._crash.args) from self._crash.__cause__

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Note that an actor will hear of a crash by what the block raises."""
        self.enter()
        try:
            yield
        except ClientCrashed:
            self.heard()
            raise
        finally:
            self.leave()

    def enter(self) -> None:
        """Begin what `in_use` does."""
        self._users += 1

    def leave(self) -> None:
        """End what `in_use` does."""
        self._users -= 1
        self._tell()

    def heard(self) -> None:
        """Note that an actor hears of the crash by a `ClientCrashed`, so that nobody has to be told."""
        self._is_told = True

    def _broke_down(self, crash: ClientCrashed) -> None:
        if self._crash is None:
            self._crash = crash
            self._tell()

    def _tell(self) -> None:
        """Tell of a crash, if there was one and nobody is about to hear of it by himself."""
        if self._crash is not None and not (self._is_told or self._users or self._stopping):
            self._is_told = True
            for on_crash in tuple(self.listeners.values()):
                on_crash(self._crash)

    # --- its methods ---------------------------------------------------------------------------------

    def start_method(self, method: str, argument: object) -> Future[Any]:
        """Have a method of the Ray actor called. Raises `ClientCrashed` if the process has broken down."""
        self.check()
        if self._actor is None or not ray.is_initialized():
            raise ClientCrashed("the process of the model has ended")
        future: Future[Any] = getattr(self._actor, method).remote(argument).future()
        return future

    async def result(self, future: Future[Any]) -> Any:  # noqa: ANN401 - whatever the method returns
        """Wait for what a method returns. Raises `ClientCrashed` if the process has broken down."""
        try:
            return await result_of(future)
        except RayActorError as error:
            self._broke_down(_reason(error))
            self.check()
            raise
        except RayError as error:
            raise ModelError(f"Ray failed: {title_of(error)}", kind="server") from error

    async def ask(self, method: str, argument: object) -> Any:  # noqa: ANN401 - as above
        """Call a method of the Ray actor. Raises `ClientCrashed` if the process has broken down."""
        return await self.result(self.start_method(method, argument))


@cache
def _host_class() -> Any:  # noqa: ANN401 - Ray's wrapper of the class
    return ray.remote(ModelHost)


def _reason(error: BaseException) -> ClientCrashed:
    """Return how to tell of an error of Ray that ended the process."""
    said = text_of(error).partition(_ADVICE)[0] or type(error).__name__
    # Not as it is: Ray's error about an error leads to itself, for who follows its causes.
    cause = getattr(error, "cause", None) if isinstance(error, RayTaskError) else error
    return _crashed("the process of the model has died", said, cause)


def _crashed(what: str, said: str, cause: BaseException | None) -> ClientCrashed:
    crash = ClientCrashed(f"{what}: {' '.join(said.split())[:_LONGEST_REASON]}")
    crash.__cause__ = cause
    return crash
