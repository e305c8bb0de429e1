"""The service on Ray Serve: replicas of the orchestrator behind Serve's proxies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultra.config.file import ConfigurationFile
from ultra.config.loading import load_configuration
from ultra.errors import BadCall, MissingExtra, OrchestratorClosed, text_of

if TYPE_CHECKING:
    from ray.serve import Application
    from ray.serve.handle import DeploymentHandle
    from starlette.applications import Starlette

    from ultra.service.core import Service

__all__ = ["application", "serve_app"]


def serve_app(
    config: str | Path,
    *,
    name: str = "ultra",
    route_prefix: str = "/",
    **options: Any,  # noqa: ANN401 - whatever Ray Serve takes
) -> DeploymentHandle[Any]:
    """Deploy replicas of the service of a configuration on Ray Serve, and wait until they answer.

        ray.init(address="auto")
        serve_app("ultra.toml", autoscaling_config={"min_replicas": 1, "max_replicas": 8})
        ...
        serve.delete("ultra")  # each replica answers what it has begun, and then stops its actors

    All addresses of `ultra serve` are there, below `route_prefix`; answers are streamed; a client that hangs
    up cancels its run. Serve asks each replica whether its actors run, and replaces one where they do not.
    Replicas share what the configuration lets them share: budgets, caches and journals in Redis.

    This blocks. Called again, it replaces the replicas, one after the other.

    Args:
        config: the path of the configuration. The file is read and checked here, and its text goes to the
            replicas; the environment variables that it names must be set here and there.
        name: of the application in Ray Serve.
        route_prefix: the path below which the service answers.
        options: of the deployment, such as ``num_replicas``, ``autoscaling_config``, ``ray_actor_options``,
            ``max_ongoing_requests`` (by default ``max_running`` of the configuration),
            ``health_check_period_s`` and ``graceful_shutdown_timeout_s`` (by default 60).

    Raises:
        ConfigError: something in the configuration is not allowed.
        BadCall: an option is not allowed.
        MissingExtra: the extra ``ray`` or ``serve`` is not installed.
        RuntimeError: the replicas do not start; Serve's message says why.
    """
    app = application(config, **options)
    handle: DeploymentHandle[Any] = _ray_serve().run(app, name=name, route_prefix=route_prefix)
    return handle


def application(config: str | Path, **options: Any) -> Application:  # noqa: ANN401 - as above
    """Return the same as an application of Ray Serve that is not deployed: for ``serve run``, or `serve.run`.

    Arguments and errors are those of `serve_app`.
    """
    if not isinstance(config, str | Path):
        given = type(config).__name__
        raise BadCall(
            f"config is of type {given}; it must be the path of a configuration, such as ultra.toml"
        )
    file = ConfigurationFile.read(config)
    settings = load_configuration(file).serve
    from ultra.service import app_from_config  # noqa: PLC0415 - says, here, that an extra is missing
    from ultra.service.app import make_app  # noqa: F401, PLC0415 - as above

    serve = _ray_serve()
    options = {"max_ongoing_requests": settings.max_running, "graceful_shutdown_timeout_s": 60.0} | options
    services: list[Service] = []  # in each replica: the one that `build` made there

    def build() -> Starlette:
        app = app_from_config(load_configuration(file))
        services.append(app.state.service)
        return app

    class UltraService:
        """One replica: an orchestrator with its actors, behind the service's ASGI application."""

        async def check_health(self) -> None:
            """Raise if the actors do not run, or do not answer. A model that is down is no reason."""
            (service,) = services
            try:
                # In a thread: it waits for the thread of the actors, and this loop must go on meanwhile.
                await asyncio.to_thread(service.orchestrator.health)
            except OrchestratorClosed as error:
                raise RuntimeError("the actors of this replica have ended") from error

    try:
        deployment = serve.deployment(**options)(serve.ingress(build)(UltraService))
    except (TypeError, ValueError) as error:
        raise BadCall(f"an option of the deployment is not allowed: {text_of(error)}") from error
    bound: Application = deployment.bind()
    return bound


def _ray_serve() -> Any:  # noqa: ANN401 - a module
    """Import Ray Serve, which takes seconds. Raises `MissingExtra` where there is only the rest of Ray."""
    try:
        from ray import serve  # noqa: PLC0415 - see above
    except ImportError as error:
        raise MissingExtra("the service on Ray Serve", "ray") from error
    return serve
