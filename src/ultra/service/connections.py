"""Connections on trio, below Hypercorn's protocols: reading, writing, the time a client may be silent.

Hypercorn's own connections take a lock for each write, send head and body apart, pass messages through a
channel, and start and cancel a task around each request for the time that a connection is idle: two thirds of
what a request costs there. Here a connection has one deadline, and what is in its way is a queue.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio

from ultra.errors import MissingExtra

try:
    from hypercorn.events import Closed, RawData, Updated
    from hypercorn.protocol import ProtocolWrapper
    from hypercorn.trio.lifespan import Lifespan
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import ConnectionState
    from hypercorn.utils import parse_socket_addr, repr_socket_addr, wrap_app
except ImportError:
    raise MissingExtra("the service", "serve") from None

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from hypercorn.config import Config
    from hypercorn.events import Event

__all__ = ["serve_connections"]

_MOST_READ: Final = 2**16
_MOST_MESSAGES: Final = 10
"""Messages that wait for an application, which are parts of a body; what follows stays in the socket."""


async def serve_connections(
    app: Any,  # noqa: ANN401 - Hypercorn has its own types for ASGI
    config: Config,
    listening: socket.socket,
    ended: trio.Event,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application until `ended`; tells the address once connections are accepted.

    Then idle connections are closed, and others have ``graceful_timeout`` seconds.
    """
    server = _Server(wrap_app(app, config.wsgi_max_body_size, "asgi"), config, WorkerContext(None), {}, set())
    lifespan = Lifespan(server.app, config, server.state)

    async def handle(stream: trio.SocketStream) -> None:
        await _Connection(stream, server).run()

    async with trio.open_nursery() as living:
        await living.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listening))]
                accepting.start_soon(_accept, handle, listeners, connections)
                task_status.started(f"http://{repr_socket_addr(listening.family, listening.getsockname())}")
                await ended.wait()
                accepting.cancel_scope.cancel()
            await server.context.terminated.set()
            for scope in server.idle:
                scope.cancel()
            connections.cancel_scope.deadline = trio.current_time() + config.graceful_timeout
        await lifespan.wait_for_shutdown()
        living.cancel_scope.cancel()


async def _accept(
    handle: Callable[[trio.SocketStream], Awaitable[None]],
    listeners: list[trio.SocketListener],
    connections: trio.Nursery,
) -> None:
    await trio.serve_listeners(handle, listeners, handler_nursery=connections)


class _Server(NamedTuple):
    """What all connections share. `idle` has the scopes of those on which no request is under way."""

    app: Any
    config: Config
    context: WorkerContext
    state: dict[str, Any]
    idle: set[trio.CancelScope]


class _Connection:
    """One connection."""

    def __init__(self, stream: trio.SocketStream, server: _Server) -> None:
        self._stream = stream
        self._server = server
        self._reading = trio.CancelScope()
        self._writing = trio.Lock()
        self._head = b""  # of a response; it is sent with the first part of the body
        self._is_cut = False

    async def run(self) -> None:
        """Answer requests until the client, its silence or the server ends that."""
        connected = self._stream.socket
        protocol: Any = ProtocolWrapper  # its task group would be a context manager, too, which nobody enters
        try:
            client = parse_socket_addr(connected.family, connected.getpeername())
            here = parse_socket_addr(connected.family, connected.getsockname())
            async with trio.open_nursery() as nursery:
                self._protocol = protocol(
                    self._server.app,
                    self._server.config,
                    self._server.context,
                    _Applications(nursery),
                    ConnectionState(self._server.state.copy()),
                    False,  # noqa: FBT003 - Hypercorn's `ssl`
                    client,
                    here,
                    self._handle,
                    "http/1.1",
                )
                await self._read()
        except OSError:
            pass  # it was gone before it was there
        finally:
            self._server.idle.discard(self._reading)
            await self._close()

    async def _read(self) -> None:
        with self._reading:
            self._begin_to_be_idle()
            await self._protocol.initiate()
            while True:
                try:
                    data = await self._stream.receive_some(_MOST_READ)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    break
                await self._protocol.handle(RawData(bytes(data)))
                if not data:
                    break
        await self._protocol.handle(Closed())

    def _begin_to_be_idle(self) -> None:
        self._server.idle.add(self._reading)
        self._reading.deadline = trio.current_time() + self._server.config.keep_alive_timeout

    # --- what the protocol wants -------------------------------------------------------------------------

    async def _handle(self, event: Event) -> None:
        match event:
            case RawData():
                await self._write(event.data)
            case Closed():
                await self._write(b"")
                await self._close()
                await self._protocol.handle(event)
            case Updated(idle=True):
                await self._write(b"")
                self._begin_to_be_idle()
            case Updated():
                self._server.idle.discard(self._reading)
                self._reading.deadline = float("inf")
            case _:
                pass

    async def _write(self, data: bytes) -> None:
        if self._is_cut:
            return
        if _is_head(data):
            self._head += data
            return
        if not (data or self._head):
            return
        try:
            self._writing.acquire_nowait()
        except trio.WouldBlock:
            await self._writing.acquire()
        try:
            data, self._head = self._head + data, b""
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._is_cut = True
        except BaseException:
            self._is_cut = True  # nobody knows how much of it was sent
            raise
        finally:
            self._writing.release()
        if self._is_cut:
            await self._protocol.handle(Closed())

    async def _close(self) -> None:
        with suppress(trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError):
            await self._stream.send_eof()
        await self._stream.aclose()


def _is_head(data: bytes) -> bool:
    """Return whether these bytes are the head of a response, behind which a body comes."""
    return data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1")


class _Applications:
    """Runs the application for the requests of one connection: what Hypercorn calls a task group."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    async def spawn_app(
        self,
        app: Any,  # noqa: ANN401 - as above
        config: Config,
        scope: Any,  # noqa: ANN401 - as above
        send: Callable[[Any], Awaitable[None]],
    ) -> Callable[[Any], Awaitable[None]]:
        """Start it, and return what takes the messages that it receives."""
        messages = _Messages()
        self._nursery.start_soon(self._run, app, config, scope, messages, send)
        return messages.put

    def spawn(self, function: Callable[..., Any], *args: Any) -> None:  # noqa: ANN401 - Hypercorn's
        """Start another task of the protocol."""
        self._nursery.start_soon(function, *args)

    async def _run(
        self,
        app: Any,  # noqa: ANN401 - as above
        config: Config,
        scope: Any,  # noqa: ANN401 - as above
        messages: _Messages,
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        try:
            await app(scope, messages.receive, send, trio.to_thread.run_sync, trio.from_thread.run)
        except BaseExceptionGroup as group:
            if group.split(trio.Cancelled)[1] is None:
                raise
            await config.log.exception("Error in ASGI Framework")
        except Exception:  # noqa: BLE001 - the connection answers 500, or is closed
            await config.log.exception("Error in ASGI Framework")
        finally:
            messages.close()
            await send(None)


class _Messages:
    """The messages of one request on their way to the application."""

    def __init__(self) -> None:
        self._waiting: list[Any] = []  # a few; an empty deque has 760 bytes
        self._parked = trio.lowlevel.ParkingLot()  # who reads, or else who writes
        self._is_closed = False

    async def put(self, message: Any) -> None:  # noqa: ANN401 - as above
        """Add one. A part of a body waits for its place; nothing is added once the application has ended."""
        while len(self._waiting) >= _MOST_MESSAGES and message["type"] == "http.request":
            if self._is_closed:
                return
            await self._parked.park()
        self._waiting.append(message)
        self._parked.unpark_all()

    async def receive(self) -> Any:  # noqa: ANN401 - as above
        """Return the next one."""
        while not self._waiting:
            await self._parked.park()
        message = self._waiting.pop(0)
        self._parked.unpark_all()
        return message

    def close(self) -> None:
        """Let nobody wait who has more, since the application has ended."""
        self._is_closed = True
        self._waiting.clear()
        self._parked.unpark_all()
