"""Ultra on Ray: `place` runs a model in a process of the cluster, `serve_app` the service on Ray Serve.

Needs the extra ``ray``. The program connects to the cluster itself, by ``ray.init(...)``. ::

    orchestrator.register_model("llama", place(partial(Llama, "/weights/llama"), num_gpus=1))
    serve_app("ultra.toml", num_replicas=2)
"""

from typing import TYPE_CHECKING, Final

from ultra._support.lazy import lazy_names
from ultra.errors import MissingExtra

try:
    import ray as _ray  # noqa: F401 - whether it is there
except ImportError as error:
    raise MissingExtra("ultra.cluster.ray", "ray") from error

if TYPE_CHECKING:
    from ultra.cluster.ray.placing import PlacedModel, place
    from ultra.cluster.ray.serving import application, serve_app

__all__ = ["PlacedModel", "application", "place", "serve_app"]

_HOMES: Final = {
    "PlacedModel": "ultra.cluster.ray.placing",
    "application": "ultra.cluster.ray.serving",
    "place": "ultra.cluster.ray.placing",
    "serve_app": "ultra.cluster.ray.serving",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
