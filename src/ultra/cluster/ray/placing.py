"""Models in processes of a Ray cluster, registered as any other client is."""

from __future__ import annotations

import hashlib
from functools import partial
from inspect import isclass
from typing import TYPE_CHECKING, Any, Final

import ray
import trio
from ray import cloudpickle

from ultra._support.checks import check_seconds
from ultra.clients.adapter import ClientAdapter
from ultra.cluster.ray.host import ModelHost
from ultra.cluster.ray.process import MOST_TASKS, ModelProcess
from ultra.cluster.ray.remote_call import RemoteCall
from ultra.errors import BadCall, text_of, title_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ultra.clients.catalog.model_info import ModelInfo
    from ultra.errors import ClientCrashed
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import Completion

__all__ = ["PlacedModel", "place"]

_OURS: Final = {
    "max_restarts": "the supervisor of the model restarts it",
    "max_task_retries": "the retry policy of the model decides",
    "max_concurrency": "the limits of the model decide",
    "lifetime": "it ends with the model's actor",
    "name": "only the model's actor talks to it",
    "get_if_exists": "only the model's actor talks to it",
    "concurrency_groups": "it has none",
    "allow_out_of_order_execution": "each call has an order of its own",
}
"""Options of Ray actors that are not passed on, and why."""


def place(
    model: object,
    *,
    num_gpus: float | None = None,
    num_cpus: float | None = None,
    start_timeout: float = 300.0,
    connect_to: str | None = None,
    **options: Any,  # noqa: ANN401 - whatever Ray takes
) -> PlacedModel:
    """Have a model run in a process of the Ray cluster, and return the client to register in its place.

        ray.init(address="auto")
        orchestrator.register_model("llama", place(partial(Llama, "/weights/llama"), num_gpus=1))

    The process starts with the model's actor, and ends with it. If it dies, that is a crash of the actor: its
    supervisor restarts it, by its intensity, in a new process; Ray's own restarts and retries are off.
    Deadlines and cancellation reach the client, text comes while it is written, and its errors arrive as what
    they are. Context variables of the caller do not.

    Args:
        model: a client of any shape, which is pickled; or the class of one, or a `functools.partial` of the
            class, which is called there, so that weights are loaded there alone. What a client says of itself
            (``info``, ``context_window``) it then has to say in attributes of the class.
        num_gpus: GPUs that are its own; parts of one are possible.
        num_cpus: likewise.
        start_timeout: how long it may take until the client is made [s], the wait for a machine included;
            then the start counts as a crash. Requests wait meanwhile, as long as their deadlines allow.
        connect_to: the address of the cluster, as `ray.init` takes it, to which the program is connected when
            the model starts, if it is connected to none then; None: that is left to the program.
        options: other options of Ray actors, such as ``resources``, ``memory``, ``runtime_env`` and
            ``scheduling_strategy``.

    Raises:
        BadCall: the model is no client, or cannot be pickled; or an option is not allowed.
    """
    check_seconds("start_timeout", start_timeout, positive=True)
    shares = {"num_gpus": num_gpus, "num_cpus": num_cpus}
    options |= {name: value for name, value in shares.items() if value is not None}
    return PlacedModel(model, _checked(options), start_timeout, connect_to)


class PlacedModel:
    """What `place` returns: a client whose calls are made in another process. Register it, do not call it.

    Registered several times, or with several orchestrators, it shares its process, within one trio run.
    """

    async_library = "trio"
    reads_context = False

    def __init__(
        self, model: object, options: dict[str, Any], start_timeout: float, connect_to: str | None = None
    ) -> None:
        kind = _class_to_make(model)
        shape = model if kind is None else _unmade(kind)
        self._shape = ClientAdapter(shape)
        self._made = _pickled(partial(_itself, model) if kind is None else model)
        self._name = (kind or type(model)).__qualname__
        self._options = options
        self._start_timeout = start_timeout
        self._connect_to = connect_to
        self._process: ModelProcess | None = None
        self.cache_identity = self._shape.cache_identity
        if kind is not None:  # what it is made of tells it from others, whatever it says of itself there
            self.cache_identity = f"{self._name}:{hashlib.sha256(self._made).hexdigest()}"
        self.option_names = self._shape.option_names
        self.takes_conversations = self._shape.takes_conversations
        self.takes_tools = self._shape.takes_tools
        self.tells_finish_reason = self._shape.tells_finish_reason
        self.context_window = self._shape.context_window
        self.provider, self.model = self._shape.origin

    def __repr__(self) -> str:
        shares = [name for name in ("num_gpus", "num_cpus") if name in self._options]
        told = (type(self).__name__, self._name, *(f"{name}={self._options[name]!r}" for name in shares))
        return f"<{' '.join(told)}>"

    @property
    def info(self) -> ModelInfo:
        """What is known of the model."""
        return self._shape.info

    # --- for its actor -------------------------------------------------------------------------------

    async def start_with_actor(
        self, on_crash: Callable[[ClientCrashed], None]
    ) -> Callable[[], Awaitable[None]]:
        """Have the process started, unless one runs for another actor already.

        Raises:
            ClientCrashed: Ray does not start it.
            BadCall: it runs for an actor of another trio run.
        """
        process = self._process
        if process is None or process.has_crashed:
            process = self._process = ModelProcess(
                self._made, self._options, self._start_timeout, self._connect_to
            )
        if process.token is not trio.lowlevel.current_trio_token():
            raise BadCall(f"{self!r} is in use in another trio run; place the model once for each")
        user = object()
        process.listeners[user] = on_crash
        stop = partial(self._leave, process, user)
        try:
            if process.is_new:
                await process.launch()
        except BaseException:
            with trio.CancelScope(shield=True):
                await stop()
            raise
        return stop

    async def until_ready(self) -> None:
        """Wait until the client is made. Raises `ClientCrashed` if it is not, in time."""
        await self._running().until_ready()

    async def _leave(self, process: ModelProcess, user: object) -> None:
        del process.listeners[user]
        if not process.listeners:
            if self._process is process:
                self._process = None
            await process.stop()

    def _running(self) -> ModelProcess:
        if self._process is None:
            raise BadCall(f"{self!r} does not run: register it, and ask the orchestrator")
        return self._process

    # --- its calls -----------------------------------------------------------------------------------

    async def respond(self, request: ModelRequest) -> Completion:
        """Have the client answer."""
        return await RemoteCall(self._running(), request, streams=False).completion()

    @property
    def stream_response(self) -> Callable[[ModelRequest], RemoteCall] | None:
        """A method that has the client answer piece by piece; None: the client does not stream."""
        return self._stream if self._shape.streams else None

    def _stream(self, request: ModelRequest) -> RemoteCall:
        return RemoteCall(self._running(), request, streams=True)


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the Ray actor, with those that are Ultra's to decide."""
    for name, why in _OURS.items():
        if name in options:
            raise BadCall(f"{name} is no option of a placed model: {why}")
    try:
        ray.remote(ModelHost).options(**options)
    except (TypeError, ValueError) as error:
        raise BadCall(f"an option of the placed model is not allowed: {text_of(error)}") from error
    return options | {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": MOST_TASKS}


def _class_to_make(model: object) -> type | None:
    """Return the class whose object is made in the other process; None: `model` is a client itself."""
    kind = model.func if isinstance(model, partial) else model
    return kind if isclass(kind) else None


def _unmade(kind: type) -> object:
    """Return an object of a class of clients that shows its methods, and was never initialized."""
    try:
        return kind.__new__(kind)  # type: ignore[call-overload] # it may take more, which is told
    except Exception as error:
        raise BadCall(
            f"{kind.__qualname__} cannot be placed as a class: its `__new__` takes more than the class "
            f"({title_of(error)}); give an object, or a class whose `__init__` takes the arguments"
        ) from error


def _pickled(made: object) -> bytes:
    try:
        data: bytes = cloudpickle.dumps(made)  # type: ignore[no-untyped-call] # the library's
    except Exception as error:
        raise BadCall(
            f"the model cannot be sent to another process: {title_of(error)}; place its class, or a "
            "functools.partial of the class, and it is made there"
        ) from error
    return data


def _itself(client: object) -> object:
    return client
