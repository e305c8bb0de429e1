"""`GET /openapi.json`: the addresses of the service in OpenAPI 3.1, with the schemas of the types themselves.

An address is a row of `OPERATIONS`; a protocol adds its own there.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any, Final

import msgspec
from msgspec import Struct

from ultra.messages.events import Event
from ultra.messages.results import OrchestrationResult
from ultra.service.batches.endpoint import BatchObject, BatchQuery
from ultra.service.batches.lines import BatchLine, ResultLine
from ultra.service.chat.request import ChatRequest
from ultra.service.messages.request import CountRequest, MessageRequest
from ultra.service.native.kept import After, Shown
from ultra.service.native.listing import RunFilter
from ultra.service.native.record import KeptRunObject, RunList
from ultra.service.native.request import NativeRequest
from ultra.service.page.agreement import Compared
from ultra.service.reply_types import (
    AnthropicErrorReply,
    ChatChunk,
    ChatCompletion,
    Deleted,
    Described,
    ErrorReply,
    Health,
    ModelEntry,
    ModelList,
    Ready,
    TokenCount,
)
from ultra.service.responses.kept import InputQuery, RetrieveQuery
from ultra.service.responses.request import ResponseRequest

__all__ = ["OPERATIONS", "Operation", "document"]

_JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream"
_LINES: Final = "application/jsonl"

_OBJECT: Any = dict[str, Any]
"""An object that another protocol describes."""

_REFUSALS: Final = {
    400: "A field of the request is not allowed",
    401: "The key is missing, or not known",
    403: "This caller may not ask",
    404: "There is no such model, or no such address",
    405: "Another method is allowed here",
    408: "The body did not arrive in time",
    413: "The body is too large",
    415: "The body is no JSON",
    409: "The run has not ended yet",
    422: "The request has an image, and no model sees; or its Idempotency-Key was used for another one",
    429: "A limit of requests, tokens or dollars is reached; ask again later",
    431: "The headers are too large",
    500: "The service failed",
    502: "Too few models answered, or the answer could not be written",
    503: "The service is full, or ends",
    504: "The run did not end in time",
}
"""What any address may answer in place of what was asked for; the body is an `ErrorReply`."""


_GOOD: Final = {200: "What was asked for", 204: "There is nothing more"}


class Operation(Struct, frozen=True, kw_only=True):
    """One address: its body, and its good replies, by status and media type, as types, or several of them.

    `parameters` are the names in its path; `query` is a type whose fields are those behind it. `texts` are
    good replies that are no JSON, by media type. `error`: the shape of refusals, in the protocol's words.
    """

    path: str
    method: str
    name: str
    summary: str
    body: Any = None
    body_type: str = _JSON
    replies: dict[int, dict[str, Any]] = {}
    texts: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    query: Any = None
    error: Any = ErrorReply


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        path="/v1/chat/completions",
        method="post",
        name="createChatCompletion",
        summary="Answer a conversation, in OpenAI's protocol",
        body=ChatRequest,
        replies={200: {_JSON: ChatCompletion, _EVENTS: ChatChunk}},
    ),
    Operation(
        path="/v1/responses",
        method="post",
        name="createResponse",
        summary="Answer, in OpenAI's protocol of responses",
        body=ResponseRequest,
        replies={200: {_JSON: _OBJECT, _EVENTS: _OBJECT}},
    ),
    Operation(
        path="/v1/responses/{id}",
        method="get",
        name="retrieveResponse",
        summary="Give a stored response, or its events behind those that the client has",
        parameters=("id",),
        query=RetrieveQuery,
        replies={200: {_JSON: _OBJECT, _EVENTS: _OBJECT}},
    ),
    Operation(
        path="/v1/responses/{id}",
        method="delete",
        name="deleteResponse",
        summary="Delete a stored response; one that goes on is cancelled first",
        parameters=("id",),
        replies={200: {_JSON: Deleted}},
    ),
    Operation(
        path="/v1/responses/{id}/cancel",
        method="post",
        name="cancelResponse",
        summary="Cancel a response in the background; a second time it gives the same",
        parameters=("id",),
        replies={200: {_JSON: _OBJECT}},
    ),
    Operation(
        path="/v1/responses/{id}/input_items",
        method="get",
        name="listInputItems",
        summary="List what a stored response was given",
        parameters=("id",),
        query=InputQuery,
        replies={200: {_JSON: _OBJECT}},
    ),
    Operation(
        path="/v1/messages",
        method="post",
        name="createMessage",
        summary="Answer a conversation, in Anthropic's protocol",
        body=MessageRequest,
        replies={200: {_JSON: _OBJECT, _EVENTS: _OBJECT}},
        error=AnthropicErrorReply,
    ),
    Operation(
        path="/v1/messages/count_tokens",
        method="post",
        name="countTokens",
        summary="Estimate how many tokens a request has; no model is asked",
        body=CountRequest,
        replies={200: {_JSON: TokenCount}},
        error=AnthropicErrorReply,
    ),
    Operation(
        path="/v1/models",
        method="get",
        name="listModels",
        summary="List ensembles and models",
        replies={200: {_JSON: ModelList}},
    ),
    Operation(
        path="/v1/models/{model}",
        method="get",
        name="showModel",
        summary="Show one ensemble or model",
        replies={200: {_JSON: ModelEntry}},
        parameters=("model",),
    ),
    Operation(
        path="/v1/runs",
        method="post",
        name="createRun",
        summary="Carry out a run with all its settings; its result, or its events",
        body=NativeRequest,
        replies={200: {_JSON: (OrchestrationResult, KeptRunObject), _EVENTS: Event, _LINES: Event}},
    ),
    Operation(
        path="/v1/runs",
        method="get",
        name="listRuns",
        summary="List the kept runs of who asks, the last accepted first",
        query=RunFilter,
        replies={200: {_JSON: RunList}},
    ),
    Operation(
        path="/v1/runs/{id}",
        method="get",
        name="showRun",
        summary="Show a kept run, and its result once there is one",
        parameters=("id",),
        query=Shown,
        replies={200: {_JSON: KeptRunObject}},
    ),
    Operation(
        path="/v1/runs/{id}",
        method="delete",
        name="deleteRun",
        summary="Delete a kept run; one that goes on is cancelled first",
        parameters=("id",),
        replies={200: {_JSON: Deleted}},
    ),
    Operation(
        path="/v1/runs/{id}/events",
        method="get",
        name="followRun",
        summary="Send the events of a kept run behind those that the client has, until it ends",
        parameters=("id",),
        query=After,
        replies={200: {_EVENTS: Event}, 204: {}},
    ),
    Operation(
        path="/v1/runs/{id}/cancel",
        method="post",
        name="cancelRun",
        summary="Cancel a kept run; a second time it gives the same",
        parameters=("id",),
        replies={200: {_JSON: KeptRunObject}},
    ),
    Operation(
        path="/v1/runs/batch",
        method="post",
        name="createBatch",
        summary="Carry out many runs, given as lines of JSON, some at a time",
        body=BatchLine,
        body_type=_LINES,
        query=BatchQuery,
        replies={200: {_JSON: BatchObject}},
    ),
    Operation(
        path="/v1/runs/batch/{id}",
        method="get",
        name="showBatch",
        summary="Show how many runs of a batch have ended, and how",
        parameters=("id",),
        replies={200: {_JSON: BatchObject}},
    ),
    Operation(
        path="/v1/runs/batch/{id}/results",
        method="get",
        name="showResults",
        summary="Give the results of a batch so far, as lines of JSON",
        parameters=("id",),
        replies={200: {_LINES: ResultLine}},
    ),
    Operation(
        path="/v1/runs/batch/{id}/cancel",
        method="post",
        name="cancelBatch",
        summary="Let no more runs of a batch begin, and cancel those that run",
        parameters=("id",),
        replies={200: {_JSON: BatchObject}},
    ),
    Operation(
        path="/v1/agreement",
        method="post",
        name="compareAnswers",
        summary="Tell who of several answers agrees with whom; no model is asked",
        body=Compared,
        replies={200: {_JSON: dict[str, Any]}},
    ),
    Operation(
        path="/v1/status",
        method="get",
        name="showStatus",
        summary="Show models and actors at this moment",
        replies={200: {_JSON: dict[str, Any]}},
    ),
    Operation(
        path="/v1/strategies",
        method="get",
        name="listStrategies",
        summary="List the names of strategies",
        replies={200: {_JSON: dict[str, list[str]]}},
    ),
    Operation(
        path="/healthz",
        method="get",
        name="health",
        summary="Tell whether the process lives",
        replies={200: {_JSON: Health}},
    ),
    Operation(
        path="/readyz",
        method="get",
        name="ready",
        summary="Tell whether every ensemble can reach its quorum",
        replies={200: {_JSON: Ready}, 503: {_JSON: Ready}},
    ),
    Operation(
        path="/metrics",
        method="get",
        name="metrics",
        summary="Give all numbers to Prometheus",
        texts=("text/plain", "application/openmetrics-text"),
    ),
    Operation(
        path="/openapi.json",
        method="get",
        name="describe",
        summary="Give this description",
        replies={200: {_JSON: Described}},
    ),
)


@cache
def document() -> dict[str, Any]:
    """Return the description of the service. It is the same for all services of this version."""
    types = _types()
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    of_type = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation, of_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ultra",
            "version": version("ultra-llm"),
            "description": "An ensemble of language models is a model name.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "security": [{"key": []}, {}],
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _types() -> list[Any]:
    found: list[Any] = []
    for operation in OPERATIONS:
        found += [operation.error, *([operation.body] if operation.body is not None else [])]
        for media in operation.replies.values():
            for kind in media.values():
                found += kind if isinstance(kind, tuple) else [kind]
    return list({id(kind): kind for kind in found}.values())


def _described(operation: Operation, of_type: dict[int, Any]) -> dict[str, Any]:
    replies: dict[str, Any] = {
        str(status): {
            "description": words,
            "content": {_JSON: {"schema": of_type[id(operation.error)]}},
        }
        for status, words in _REFUSALS.items()
    }
    for status, media in operation.replies.items():
        replies[str(status)] = {
            "description": _GOOD.get(status) or _REFUSALS[status],
            "content": {kind: {"schema": _schema_of(value, of_type)} for kind, value in media.items()},
        }
    if operation.texts:
        content = {kind: {"schema": {"type": "string"}} for kind in operation.texts}
        replies["200"] = {"description": "What was asked for", "content": content}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": replies,
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in operation.parameters
    ]
    if operation.query is not None:
        parameters += _query_parameters(operation.query)
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        content = {operation.body_type: {"schema": of_type[id(operation.body)]}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _schema_of(kind: Any, of_type: dict[int, Any]) -> Any:  # noqa: ANN401 - a type, or several
    if isinstance(kind, tuple):
        return {"anyOf": [of_type[id(each)] for each in kind]}
    return of_type[id(kind)]


def _query_parameters(kind: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - a type
    """Return the fields of a type as parameters; of lists, with commas between their items."""
    (schema,), components = msgspec.json.schema_components([kind])
    properties = components[schema["$ref"].rpartition("/")[2]]["properties"]
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": each.get("anyOf", [each])[0],  # what may be left out is no null in an address
            "style": "form",
            "explode": False,
        }
        for name, each in properties.items()
    ]
