"""Proactive negotiation: Accept-Encoding and Accept, by RFC 9110 section 12."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyweb.negotiate import choose_coding, prefers_json, weights

ALL = [b"br", b"zstd", b"gzip"]


# ---- weights (12.4.2) ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", {}),
        (b" , ,", {}),
        (b"gzip", {b"gzip": 1.0}),
        (b"GZIP;Q=0.5", {b"gzip": 0.5}),
        (b"gzip ; q=0.25 , br", {b"gzip": 0.25, b"br": 1.0}),
        (b"gzip;q=1.000, br;q=0.001, zstd;q=0.", {b"gzip": 1.0, b"br": 0.001, b"zstd": 0.0}),
        (b"text/html;level=1;q=0.4", {b"text/html": 0.4}),
        # Named twice: the larger weight.
        (b"gzip;q=0.2, gzip;q=0.7, gzip;q=0.1", {b"gzip": 0.7}),
        # No qvalue: the member counts for nothing, the others for what they say.
        (b"gzip;q=2, br", {b"br": 1.0}),
        (b"gzip;q=-1, br", {b"br": 1.0}),
        (b"gzip;q=1.001, br", {b"br": 1.0}),
        (b"gzip;q=0.1234, br", {b"br": 1.0}),
        (b"gzip;q=.5, br", {b"br": 1.0}),
        (b"gzip;q=, br", {b"br": 1.0}),
        (b"gzip;q=nan, br", {b"br": 1.0}),
        (b"gzip;q=1e0, br", {b"br": 1.0}),
        (b";q=1, br", {b"br": 1.0}),
    ],
)
def test_weights(value: bytes, expected: dict[bytes, float]) -> None:
    assert weights(value) == expected


@given(st.text("gzip*br,;q=01. \t/", max_size=40).map(str.encode) | st.binary(max_size=40))
def test_weights_of_anything(value: bytes) -> None:
    for name, weight in weights(value).items():
        assert name
        assert 0 <= weight <= 1


# ---- Accept-Encoding (12.5.3) --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        # No field: any coding is acceptable; we send none.
        (None, b"identity"),
        # An empty one: no coding is wanted.
        (b"", b"identity"),
        (b"identity", b"identity"),
        (b"gzip", b"gzip"),
        (b"x-gzip", b"gzip"),
        (b"GZip", b"gzip"),
        (b"br", b"br"),
        (b"gzip, deflate, br, zstd", b"br"),
        (b"gzip, deflate", b"gzip"),
        (b"deflate", b"identity"),
        # The client's weights, then our order.
        (b"gzip;q=1.0, br;q=0.9", b"gzip"),
        (b"gzip;q=0.5, br;q=0.5, zstd;q=0.5", b"br"),
        (b"gzip;q=0.001", b"gzip"),
        (b"gzip;q=0", b"identity"),
        (b"gzip;q=0.5, identity", b"identity"),
        (b"gzip;q=0.5, identity;q=0.5", b"gzip"),
        (b"gzip;q=0.6, identity;q=0.5", b"gzip"),
        # "*": whatever is not named; identity too.
        (b"*", b"br"),
        (b"br;q=0, *", b"zstd"),
        (b"gzip;q=0.3, *;q=0.5, br;q=0, zstd;q=0", b"identity"),
        (b"*;q=0.5, gzip", b"gzip"),
        (b"*;q=0, gzip", b"gzip"),
        # Identity refused.
        (b"identity;q=0, gzip", b"gzip"),
        (b"identity;q=0", None),
        (b"*;q=0", None),
        (b"*;q=0, deflate", None),
        (b"identity;q=0, gzip;q=0, *", b"br"),
        # A more specific word for identity wins over "*".
        (b"*;q=0, identity;q=0.1", b"identity"),
        (b"*;q=0, identity", b"identity"),
        # Malformed: that member alone counts for nothing.
        (b"gzip;q=x, zstd", b"zstd"),
        (b"gzip;q=2", b"identity"),
    ],
)
def test_a_coding(accept: bytes | None, expected: bytes | None) -> None:
    assert choose_coding(accept, ALL) == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, b"identity"),
        (b"gzip, br", b"identity"),
        (b"*", b"identity"),
        (b"identity;q=0", None),
        (b"*;q=0", None),
        (b"gzip, *;q=0", None),
    ],
)
def test_without_neighbours(accept: bytes | None, expected: bytes | None) -> None:
    assert choose_coding(accept, []) == expected


QVALUE = st.integers(0, 1000).map(lambda n: n / 1000)
ACCEPT = st.dictionaries(st.sampled_from(["br", "zstd", "gzip", "identity", "*", "x"]), QVALUE)


@given(ACCEPT, st.lists(st.sampled_from(ALL), unique=True))
def test_never_what_is_refused(accept: dict[str, float], available: list[bytes]) -> None:
    value = ", ".join(f"{name};q={weight:.3f}" for name, weight in accept.items())
    chosen = choose_coding(value.encode(), available)

    def weight(coding: bytes, unnamed: float) -> float:
        return accept.get(coding.decode(), accept.get("*", unnamed))

    identity_weight = weight(b"identity", 0.0)
    identity_allowed = weight(b"identity", 1.0) > 0
    best = max((weight(coding, 0.0) for coding in available), default=0.0)
    if chosen is None:
        assert not identity_allowed
        assert best == 0
    elif chosen == b"identity":
        assert identity_allowed
        assert best == 0 or best < identity_weight
    else:
        assert chosen in available
        assert weight(chosen, 0.0) == best > 0
        assert best >= identity_weight


# ---- Accept (12.5.1) -----------------------------------------------------------------------------

BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, False),
        (b"", False),
        (b"*/*", False),
        (BROWSER, False),
        (b"text/html", False),
        (b"image/png", False),
        (b"application/json", True),
        (b"Application/JSON", True),
        (b"application/json, text/plain, */*", True),
        (b"application/json, */*;q=0.5", True),
        (b"application/*", True),
        (b"application/json, text/html", False),
        (b"text/html;q=0.9, application/json", True),
        (b"application/json;q=0.5, text/html;q=0.6", False),
        (b"application/json;q=0.5, text/*;q=0.6", False),
        (b"application/json, application/xhtml+xml", False),
        # The most specific range that fits gives the weight.
        (b"application/json;q=0.5, */*;q=0.8", False),
        (b"application/json;q=0.5, text/html;q=0.2, */*", True),
        (b"text/html;q=0, */*", True),
        (b"application/json;q=0", False),
        (b"application/json;q=0, text/html;q=0", False),
        (b"application/json;q=x", False),
        (b"application/json;indent=2", True),
    ],
)
def test_json_or_html(accept: bytes | None, expected: bool) -> None:
    assert prefers_json(accept) is expected


@pytest.mark.parametrize("piece", [b",", b";", b"a,", b"a;q=1,", b"q=", b" ", b"a;"])
def test_a_long_field_is_no_work(piece: bytes) -> None:
    value = piece * (60000 // len(piece))
    choose_coding(value, ALL)
    prefers_json(value)
