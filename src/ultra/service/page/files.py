"""`GET /` and `GET /page/…`: the files of the web page, as they are in the package."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from ultra.service.http import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultra.service.http import Request

__all__ = ["PAGE", "is_page", "show_page"]

PAGE: Final = "/page/"

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}

# What models wrote becomes elements in one place, the sanitizer; by trusted types, the browser refuses any
# other.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)

_HEADERS: Final = {
    "cache-control": "no-cache",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def is_page(path: str) -> bool:
    """Return whether `path` is that of a file of the page. It needs no key: nothing in it is secret."""
    return path in _files()


def show_page(request: Request) -> Reply:
    """Return the file of the page at the path of the request, or that the browser has it already."""
    data, headers = _files()[request.path]
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if headers["etag"] in known:
        return Reply(status=304, headers=headers)
    return Reply(headers=headers, body=data)


@cache
def _files() -> Mapping[str, tuple[bytes, Mapping[str, str]]]:
    root = files("ultra.service.page") / "static"
    found: dict[str, tuple[bytes, Mapping[str, str]]] = {}
    for folder, prefix in ((root, PAGE), (root / "vendor", f"{PAGE}vendor/")):
        for file in folder.iterdir():
            suffix = file.name[file.name.rfind(".") :]
            if file.is_file() and suffix in _TYPES:
                data = file.read_bytes()
                tag = f'"{sha256(data).hexdigest()[:32]}"'
                found[prefix + file.name] = (data, {**_HEADERS, "content-type": _TYPES[suffix], "etag": tag})
    found["/"] = found.pop(f"{PAGE}index.html")
    return found
