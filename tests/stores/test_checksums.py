"""The checksums of what stores keep: a wrong bit is found, and what has no checksum is read as ever."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.messages.results import Completion
from ultra.stores.checksums import checksum, is_intact, sealed, unsealed
from ultra.stores.encoding import BadAnswer, decode_answer, encode_answer
from ultra.stores.redis import RedisCache
from ultra.stores.sqlite import SqliteCache

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = Completion(content="Paris is the capital of France.")
KEY = b"k" * 32


@given(st.binary(max_size=200), st.integers(min_value=0), st.integers(1, 255))
def test_each_wrong_byte_behind_a_checksum_is_found(content: bytes, place: int, bits: int) -> None:
    kept = bytearray(sealed(content))
    assert unsealed(bytes(kept)) == content
    place = 1 + place % (len(kept) - 1)
    kept[place] ^= bits
    assert unsealed(bytes(kept)) is None


def test_what_was_written_without_a_checksum_is_read() -> None:
    assert is_intact(None, b"any")
    assert is_intact(checksum(b"a", b"b"), b"ab")
    assert not is_intact(checksum(b"a"), b"b")
    assert not is_intact("7", b"a")
    assert decode_answer(msgspec.msgpack.encode(ANSWER)) == ANSWER


def test_an_answer_with_a_wrong_bit_in_its_text_is_none() -> None:
    kept = encode_answer(ANSWER)
    assert decode_answer(kept) == ANSWER
    with pytest.raises(BadAnswer, match="its checksum is another one"):
        decode_answer(kept.replace(b"Paris", b"Parit"))


async def test_an_answer_with_a_wrong_bit_is_a_miss_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    cache = SqliteCache(path)
    await cache.shard("model").put(KEY, ANSWER)
    assert await cache.shard("model").get(KEY) == ANSWER
    with closing(sqlite3.connect(path)) as file, file:
        (table,) = file.execute("SELECT shard FROM shards").fetchone()
        (kept,) = file.execute(f"SELECT answer FROM {table}").fetchone()
        file.execute(f"UPDATE {table} SET answer = ?", (kept.replace(b"Paris", b"Parit"),))
    assert await cache.shard("model").get(KEY) is None
    await cache.shard("model").put(KEY, ANSWER)
    assert await cache.shard("model").get(KEY) == ANSWER
    await cache.aclose()


async def test_an_answer_with_a_wrong_bit_is_a_miss_in_redis(url: str) -> None:
    shard = RedisCache(url).shard("model")
    await shard.put(KEY, ANSWER)
    assert await shard.get(KEY) == ANSWER
    wrong = encode_answer(ANSWER).replace(b"Paris", b"Parit")
    await shard._server.send(b"SET", shard._prefix + KEY, wrong)
    assert await shard.get(KEY) is None
