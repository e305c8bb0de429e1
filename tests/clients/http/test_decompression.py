"""Bodies as servers compress them, and as attackers would."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from ultra.clients.http.decompression import Decompressor

WORDS = b"It is 4. " * 400


def inflate(coding: str, *pieces: bytes) -> bytes:
    decompressor = Decompressor(coding)
    found = bytearray()
    for piece in pieces:
        decompressor.feed(piece)
        while part := decompressor.read():
            assert len(part) <= 64 * 1024 or coding == ""
            found += part
    return bytes(found)


def raw_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("", WORDS),
        ("identity", WORDS),
        ("gzip", gzip.compress(WORDS)),
        ("x-gzip", gzip.compress(WORDS[:7]) + gzip.compress(b"") + gzip.compress(WORDS[7:])),
        ("gzip", gzip.compress(WORDS) + b"\0" * 100),
        ("gzip", gzip.compress(WORDS) + b"junk"),
        ("gzip", gzip.compress(WORDS) + b"\x1f\x8bjunk and more of it"),
        ("deflate", zlib.compress(WORDS)),
        ("deflate", raw_deflate(WORDS)),
        ("deflate", gzip.compress(WORDS)),
    ],
    ids=range(10),
)
@pytest.mark.parametrize("size", [1, 2, 7, 1_000_000])
def test_a_body_is_read_in_whatever_pieces_it_comes(coding: str, body: bytes, size: int) -> None:
    pieces = [body[begin : begin + size] for begin in range(0, len(body), size)]

    assert inflate(coding, *pieces) == WORDS


def test_what_follows_the_last_member_is_not_kept_and_ends_the_body() -> None:
    decompressor = Decompressor("gzip")
    decompressor.feed(gzip.compress(WORDS))
    while decompressor.read():
        pass
    assert not decompressor.ended

    tracemalloc.start()
    try:
        for _ in range(100):
            decompressor.feed(b"\0" * 65_536)
            assert decompressor.read() == b""
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert decompressor.ended


def test_a_bomb_is_inflated_only_as_far_as_it_is_read() -> None:
    decompressor = Decompressor("gzip")
    decompressor.feed(gzip.compress(b"\0" * 50_000_000))

    tracemalloc.start()
    try:
        assert len(decompressor.read()) == 64 * 1024
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_what_was_compressed_in_no_known_way_is_an_error(coding: str) -> None:
    with pytest.raises(ValueError, match="decompressing"):
        inflate(coding, b"plain words")
    with pytest.raises(ValueError, match="was not asked for"):
        Decompressor("br")
