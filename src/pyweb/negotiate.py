"""Proactive negotiation (RFC 9110 section 12): weights of Accept and Accept-Encoding.

Pure functions of field values. A member that is malformed counts for nothing; the rest holds.
"""

from __future__ import annotations

import re

_XHTML = b"application/xhtml+xml"
_QVALUE = re.compile(rb"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


def weights(value: bytes) -> dict[bytes, float]:
    """name -> weight, names in lower case, parameters other than q dropped."""
    found: dict[bytes, float] = {}
    for member in value.split(b","):
        name, *parameters = (part.strip(b" \t").lower() for part in member.split(b";"))
        weight = _weight(parameters)
        if name and weight is not None:
            found[name] = max(weight, found.get(name, 0.0))
    return found


def _weight(parameters: list[bytes]) -> float | None:
    for parameter in parameters:
        if parameter.startswith(b"q="):
            return float(parameter[2:]) if _QVALUE.fullmatch(parameter[2:]) else None
    return 1.0


def choose_coding(accept: bytes | None, available: list[bytes]) -> bytes | None:
    """One of `available` (best first), b"identity", or None: nothing is acceptable (12.5.3).

    Between codings of one weight the server's order decides. A coding that the client accepts is
    preferred to identity unless it gives identity a higher weight. Identity that is not mentioned,
    not even by "*", is acceptable, but everything else is better.
    """
    if accept is None:
        return b"identity"
    given = weights(accept)
    rest = given.get(b"*")
    identity = given.get(b"identity", rest)
    best, best_weight = b"identity", identity or 0.0
    for coding in available:
        weight = given.get(coding, given.get(b"x-" + coding, rest or 0.0))
        if weight > best_weight or (weight == best_weight > 0 and best == b"identity"):
            best, best_weight = coding, weight
    if best == b"identity" and identity == 0:
        return None
    return best


def prefers_json(accept: bytes | None) -> bool:
    """Does the client ask for JSON rather than HTML? (12.5.1: the most specific range counts.)

    Of equal weights, "application/json, */*" names JSON and not HTML; "*/*" prefers nothing, and
    who prefers nothing gets HTML, as does who accepts neither.
    """
    if accept is None:
        return False
    given = weights(accept)
    json = _of_type(given, b"application", b"json")
    html = max(_of_type(given, b"text", b"html"), given.get(_XHTML, 0.0))
    if json != html:
        return json > html
    names_html = b"text/html" in given or _XHTML in given
    return json > 0 and b"application/json" in given and not names_html


def _of_type(given: dict[bytes, float], kind: bytes, subtype: bytes) -> float:
    for media_range in (kind + b"/" + subtype, kind + b"/*", b"*/*"):
        if media_range in given:
            return given[media_range]
    return 0.0
