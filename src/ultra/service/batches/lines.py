"""The lines of a batch: what each of its runs is to do, and what is told of each."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Literal

import anyio.lowlevel
import msgspec
from msgspec import Struct

from ultra.errors import BadCall
from ultra.service.bodies import read_json
from ultra.service.http import Request
from ultra.service.native.record import KeptRunObject, RunError
from ultra.service.native.request import NativeRequest, arguments_of
from ultra.service.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.service.core import Service
    from ultra.service.targets import Targets

__all__ = ["BatchLine", "ResultLine", "check_lines", "custom_id_of", "lines_of", "read_line", "run_id_of"]

_MOST: Final = 10_000
_CHECKED_AT_ONCE: Final = 20


class BatchLine(Struct, kw_only=True, forbid_unknown_fields=True):
    """One run: `body` is that of `POST /v1/runs`, `custom_id` how its result is known again."""

    custom_id: str
    body: NativeRequest
    method: Literal["POST"] = "POST"
    url: Literal["/v1/runs"] = "/v1/runs"


class ResultLine(Struct, kw_only=True, omit_defaults=True):
    """What a line has come to: its run, with the result, or why there is none. `line` counts from 0."""

    custom_id: str
    line: int
    run: KeptRunObject | None = None
    error: RunError | None = None


class _Named(Struct):
    custom_id: str


def lines_of(body: bytes) -> list[bytes]:
    """Return the lines that are not empty."""
    return [line for line in body.split(b"\n") if line.strip()]


def run_id_of(batch_id: str, number: int) -> str:
    """Return the id of the run of a line, by which it is found again after a restart."""
    return blake2b(f"{batch_id}:{number}".encode(), digest_size=16).hexdigest()


def custom_id_of(line: bytes) -> str:
    """Return the name of a line that was checked."""
    return msgspec.json.decode(line, type=_Named).custom_id


def read_line(line: bytes, max_nesting: int) -> BatchLine:
    """Return a line. Raises `Problem`."""
    request = Request(method="POST", path="/v1/runs", body=line)
    found = read_json(request, BatchLine, max_nesting=max_nesting)
    if found.body.stream:
        raise Problem.bad_request("stream: a run of a batch gives its result alone", param="body.stream")
    return found


async def check_lines(service: Service, lines: Sequence[bytes], targets: Targets) -> None:
    """Check what all lines ask for; nothing is asked yet.

    Raises:
        Problem: there are none or too many, or a line is not allowed; the problem names it, from 1.
    """
    if not 0 < len(lines) <= _MOST:
        raise Problem.bad_request(f"a batch has 1 to {_MOST:,} lines, and this one has {len(lines):,}")
    seen: set[str] = set()
    for number, line in enumerate(lines):
        if number % _CHECKED_AT_ONCE == 0:
            await anyio.lowlevel.checkpoint()  # others want to go on, too
        try:
            found = read_line(line, service.settings.max_nesting)
            if found.custom_id in seen:
                raise Problem.bad_request("custom_id: an earlier line has the same", param="custom_id")
            seen.add(found.custom_id)
            arguments = arguments_of(found.body, targets)
            service.orchestrator.prepare_run(found.body.prompt, **arguments)
        except BadCall as error:
            raise Problem.bad_request(f"line {number + 1}: {error}") from None
        except Problem as problem:
            text = f"line {number + 1}: {problem.message}"
            raise Problem(problem.status, problem.type, problem.code, text, param=problem.param) from None
