"""`GET /v1/models` and `GET /v1/models/{id}`, in the shape of OpenAI or Anthropic."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from ultra.service.access import Caller
from ultra.service.error_shapes import is_anthropic
from ultra.service.http import json_reply
from ultra.strategies.catalog import spec_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.clients.catalog import ModelInfo
    from ultra.service.core import Service
    from ultra.service.http import Reply, Request
    from ultra.service.targets import Targets

__all__ = ["list_models", "show_model"]


def list_models(service: Service, request: Request) -> Reply:
    """Return all names that a client may ask for, ensembles first."""
    names = _targets(service, request).names()
    if is_anthropic(request.path, request.headers):
        entries = [_for_anthropic(service, name) for name in names]
        ends = {"first_id": names[0], "last_id": names[-1]} if names else {"first_id": None, "last_id": None}
        return json_reply({"data": entries, "has_more": False, **ends})
    return json_reply({"object": "list", "data": [_for_openai(service, name) for name in names]})


def show_model(service: Service, request: Request, name: str) -> Reply:
    """Return one of them. Raises `Problem` if there is none of this name."""
    _targets(service, request).get(name)
    describe = _for_anthropic if is_anthropic(request.path, request.headers) else _for_openai
    return json_reply(describe(service, name))


def _targets(service: Service, request: Request) -> Targets:
    return service.targets_for(request.caller or Caller())


def _for_anthropic(service: Service, name: str) -> dict[str, Any]:
    at = dt.datetime.fromtimestamp(service.started_at, dt.UTC)
    created = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "id": name, "display_name": name, "created_at": created}


def _for_openai(service: Service, name: str) -> dict[str, Any]:
    target = service.all_targets.get(name)
    infos = service.all_targets.info(target)
    known = list(infos.values())
    sees = [info.images for info in known]
    windows = [info.context_window for info in known if info.context_window is not None]
    images = True if any(sees) else None if None in sees else False
    about: dict[str, Any] = {
        "kind": target.kind,
        "panel": list(infos),
        "tools": _together([info.tools for info in known]),
        "images": images,
    }
    if target.kind == "ensemble":
        about["strategy"] = spec_of(target.strategy).name
    if target.description:
        about["description"] = target.description
    return {
        "id": name,
        "object": "model",
        "created": service.started_at,
        "owned_by": "ultra",
        # All must read the history, so the smallest window counts.
        "context_length": min(windows, default=None),
        "architecture": {
            "input_modalities": ["text", "image"] if images else ["text"],
            "output_modalities": ["text"],
        },
        "pricing": _pricing(known) if target.kind == "model" else None,
        "ultra": about,
    }


def _together(facts: Sequence[bool | None]) -> bool | None:
    """Return whether it holds of some of the models; None: it is not known."""
    return True if any(facts) else None if None in facts else False


def _pricing(known: Sequence[ModelInfo]) -> dict[str, str] | None:
    """Return dollars a token, as OpenRouter lists them: as text."""
    price = known[0].price if known else None
    if price is None:
        return None
    return {"prompt": f"{price.input / 1e6:.10f}", "completion": f"{price.output / 1e6:.10f}"}
