"""Body decoders: whole, byte by byte and with a tail; what is behind the body stays behind."""

from __future__ import annotations

import pytest
from cases import CHUNKS
from hypothesis import given
from hypothesis import strategies as st

from pyweb import _pyparse
from pyweb.body import Chunked, Decoder, Sized
from pyweb.errors import HTTPError, Reason
from pyweb.parse import Limits

LIMITS = Limits(8190, 65536, 100, 1 << 20)


LARGE = Limits(8190, 65536, 100, 1 << 30)


def chunked() -> Chunked:
    return Chunked(LIMITS, _pyparse.parse_fields)


def decode(decoder: Decoder, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """Content and what lies behind it."""
    content, rest = b"", b""
    for piece in pieces:
        if decoder.done:
            rest += piece
        else:
            more, rest = decoder.feed(rest + piece)
            content += more
    return content, rest


def encode(chunks: list[bytes], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    body = b"".join(b"%x%s\r\n%s\r\n" % (len(c), extension, c) for c in chunks if c)
    return body + b"0\r\n" + trailers + b"\r\n"


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@given(
    st.lists(st.binary(max_size=40), max_size=6),
    st.sampled_from([b"", b";a", b';a=b;c="d\\"e"', b" ; a = b"]),
    st.sampled_from([b"", b"X: y\r\n", b"A: 1\r\nB: 2\r\n"]),
    st.integers(1, 9),
)
def test_chunked(chunks: list[bytes], extension: bytes, trailers: bytes, size: int) -> None:
    data = encode(chunks, extension, trailers) + b"GET /next"
    for pieces in ([data], cut(data, size), cut(data, 1)):
        assert decode(chunked(), pieces) == (b"".join(chunks), b"GET /next")


@given(st.binary(max_size=60), st.binary(max_size=20), st.integers(1, 7))
def test_sized(content: bytes, tail: bytes, size: int) -> None:
    for pieces in ([content + tail], cut(content + tail, size)):
        assert decode(Sized(len(content)), pieces) == (content, tail)


BAD = [c for c in CHUNKS if c.reason and c.statuses[0] in (400, 413, 431)]


@pytest.mark.parametrize("case", BAD, ids=repr)
def test_bad_chunks_are_refused_at_every_cut(case: object) -> None:
    data = case.data.split(b"\r\n\r\n", 1)[1]  # type: ignore[attr-defined]
    for size in (1, 2, 3, len(data)):
        with pytest.raises(HTTPError) as caught:
            decode(Chunked(LARGE, _pyparse.parse_fields), cut(data, size))
        assert caught.value.reason == case.reason  # type: ignore[attr-defined]
        assert caught.value.close


def test_total_over_many_chunks_is_bounded() -> None:
    small = Chunked(Limits(8190, 65536, 100, 10), _pyparse.parse_fields)
    with pytest.raises(HTTPError) as caught:
        decode(small, [encode([b"12345", b"12345", b"1"])])
    assert caught.value.reason == Reason.BODY_TOO_LARGE


def test_no_limit() -> None:
    free = Chunked(Limits(8190, 65536, 100, 0), _pyparse.parse_fields)
    assert decode(free, [encode([b"x" * 5000])]) == (b"x" * 5000, b"")


def test_extensions_are_bounded() -> None:
    with pytest.raises(HTTPError) as caught:
        decode(chunked(), [encode([b"x"] * 100, b";" + b"a" * 500)])
    assert caught.value.reason == Reason.BAD_CHUNK
