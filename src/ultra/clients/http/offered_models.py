"""Reading the list of models of an endpoint, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from ultra.clients.catalog import known_info
from ultra.clients.dialects.model_lists import OfferedModel
from ultra.clients.http.connections import Connections, Hidden, HTTPRequest
from ultra.clients.http.wording import with_address
from ultra.clients.quirks import Quirks
from ultra.errors import ModelError

if TYPE_CHECKING:
    from ultra.clients.dialects.base import Dialect
    from ultra.clients.dialects.model_lists import ModelPage
    from ultra.clients.http.limits import HTTPLimits
    from ultra.clients.options import CallOptions

__all__ = ["offered_models"]

_MOST_PAGES: Final = 100
"""Of a thousand models each, where a provider has pages; no list is as long."""

_MOST_MODELS: Final = 50_000
"""Of one list; the longest that is known has some thousands."""

_NOT_FOUND: Final = 404


async def offered_models(
    connections: Connections, dialect: Dialect, headers: Hidden, options: CallOptions, limits: HTTPLimits
) -> tuple[OfferedModel, ...]:
    """Return all models of the list. Raises `ModelError` and `BadCall`, see `HTTPClient.list_models`."""
    extra = {name.lower(): value for name, value in (options.extra_headers or {}).items()}
    sent = {name: value for name, value in headers.value.items() if name != "content-type"} | extra
    found: dict[str, OfferedModel] = {}
    after: str | None = None
    with trio.move_on_after(limits.timeout):
        for _ in range(_MOST_PAGES):
            page = await _page(connections, dialect, Hidden(sent), after)
            if len(found) + len(page.models) > _MOST_MODELS:
                raise ModelError(
                    f"the list of models has more than {_MOST_MODELS} models",
                    provider=dialect.provider,
                    kind="protocol",
                    retryable=False,
                )
            for name, facts in page.models:
                known = known_info(dialect.provider, dialect.base_url, name).with_facts(facts)
                found[name] = OfferedModel(name=f"{dialect.provider}:{name}", info=known)
            if page.after is None or page.after == after:
                return tuple(found.values())
            after = page.after
        raise ModelError(
            f"the list of models has more than {_MOST_PAGES} pages",
            provider=dialect.provider,
            kind="protocol",
        )
    raise connections.timed_out()


async def _page(connections: Connections, dialect: Dialect, headers: Hidden, after: str | None) -> ModelPage:
    try:
        return await _read(connections, dialect, headers, after)
    except ModelError as error:
        failure = error
    versioned = dialect.adapted(Quirks(versioned=True))  # people leave out the /v1
    if failure.status == _NOT_FOUND and versioned is not dialect:
        return await _read(connections, versioned, headers, after)
    raise with_address(failure, dialect.models_url(after))


async def _read(connections: Connections, dialect: Dialect, headers: Hidden, after: str | None) -> ModelPage:
    body = await connections.open(HTTPRequest(dialect.models_url(after), headers, b"", "GET"))
    try:
        content = await body.read_all()
    finally:
        await body.aclose()
    return dialect.decode_models(content, body.head)
