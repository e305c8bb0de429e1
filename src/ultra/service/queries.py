"""Reading the query of a request's address: every mistake is a `Problem` that names the parameter."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct, structs

from ultra.service.problems import Problem

if TYPE_CHECKING:
    from ultra.service.http import Request

__all__ = ["read_query"]

T = TypeVar("T", bound=Struct)


def read_query(request: Request, kind: type[T]) -> T:
    """Return the query as a `kind`; names that this does not have are left alone.

    A field that is a tuple may be there several times, or once with commas; of another the last one counts.

    Raises:
        Problem: a value is not allowed.
    """
    given: dict[str, Any] = {}
    several = {field.name for field in structs.fields(kind) if isinstance(field.default, tuple)}
    for name, value in parse_qsl(request.query, keep_blank_values=True, errors="replace"):
        if name in several:
            given.setdefault(name, []).extend(value.split(","))
        else:
            given[name] = value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        text = str(error)
        found = re.search(r" - at `\$\.(\w+)", text)
        param = None if found is None else found[1]
        words = text if found is None else f"{param}: {text[: found.start()]}"
        raise Problem.bad_request(words, param=param) from None
