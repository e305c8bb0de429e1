"""The keys of clients, the sections `[[serve.keys]]`: who may ask for what, and how much.

Of a key only its SHA-256 digest is kept. A key has 256 random bits, so nobody finds it by trying, however
fast the hash is. A slow hash is made for passwords that people think up; here it would only cost
time in each request.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ultra._support.checks import check_count, check_number, did_you_mean
from ultra._support.randomness import new_secret
from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

__all__ = ["KeyConfig", "hash_of", "key_problems", "new_key"]

_BEGIN: Final = "sk-ultra-"
_BYTES: Final = 32
_SCHEME: Final = "sha256:"
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
_NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_COUNTS: Final = ("requests_per_minute", "tokens_per_minute", "concurrency")
_DOLLARS: Final = ("dollars_per_day", "dollars_per_month")


class KeyConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One client's key; what is None has no limit.

    Attributes:
        name: whose it is: in logs and metrics, and what keeps runs, answers and limits apart.
        hash: ``sha256:`` and the digest of the key; `ultra serve key new` makes both.
        models: the ensembles and models that it may ask for; None: all.
        requests_per_minute, tokens_per_minute: rates; tokens are those of all calls, of prompts and answers.
        concurrency: how many of its requests are answered at once.
        dollars_per_day, dollars_per_month: what its runs may cost, by the calendar of UTC.

    Raises:
        BadCall: a value is not allowed.
    """

    name: str
    hash: str
    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    dollars_per_day: float | None = None
    dollars_per_month: float | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise BadCall(f"name is {self.name[:80]!r}; it must be 1 to 64 letters, digits or . _ @ -")
        if not _HASH.fullmatch(self.hash):
            # What stands there may be the key itself.
            raise BadCall("hash must be 'sha256:' and 64 hex digits; make one with: ultra serve key new")
        if self.models is not None and not self.models:
            raise BadCall("models is empty; name one or more, or leave it out to allow all")
        for name in _COUNTS:
            check_count(name, getattr(self, name), optional=True)
        for name in _DOLLARS:
            check_number(name, getattr(self, name), positive=True, optional=True, unit="dollars")

    def is_key(self, hashed: str) -> bool:
        """Return whether this is the hash of the key; takes equally long whatever it is."""
        return compare_digest(self.hash, hashed)

    def __repr__(self) -> str:
        return f"KeyConfig(name={self.name!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return what may be shown."""
        return [("name", self.name)]


def new_key() -> str:
    """Return a new key, of 256 random bits."""
    return _BEGIN + urlsafe_b64encode(new_secret(_BYTES)).rstrip(b"=").decode()


def hash_of(key: str) -> str:
    """Return the hash of a key, as a configuration has it."""
    return _SCHEME + sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def key_problems(keys: Sequence[KeyConfig], names: Collection[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what is wrong with keys together: places, and what is there. `names`: what can be asked for."""
    seen_names: set[str] = set()
    seen_hashes: set[str] = set()
    for number, key in enumerate(keys):
        where = ("serve", "keys", str(number))
        if key.name in seen_names:
            yield (*where, "name"), f"there are two keys of the name {key.name!r}"
        if key.hash in seen_hashes:
            yield (*where, "hash"), f"the key of {key.name!r} is that of another name, too"
        seen_names.add(key.name)
        seen_hashes.add(key.hash)
        for name in key.models or ():
            if name not in names:
                allowed = ", ".join(names)
                hint = did_you_mean(name, names)
                yield (*where, "models"), f"found {name[:200]!r}; allowed are: {allowed}{hint}"
