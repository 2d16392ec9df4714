"""Proactive negotiation (RFC 9110 section 12): weights of Accept and Accept-Encoding.

Pure functions of field values. A member that is malformed counts for nothing; the rest holds.
"""

from __future__ import annotations

import re

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

    Between codings of one weight the server's order decides. A coding that the client names is
    preferred to identity unless it gives identity a higher weight.
    """
    if accept is None:
        return b"identity"
    given = weights(accept)
    rest = given.get(b"*")
    best, best_weight = b"identity", given.get(b"identity", 0.0)
    identity_refused = given.get(b"identity", 1.0 if rest is None else rest) == 0
    for coding in available:
        weight = given.get(coding, given.get(b"x-" + coding, rest or 0.0))
        if weight > best_weight or (weight == best_weight > 0 and best == b"identity"):
            best, best_weight = coding, weight
    if best == b"identity" and identity_refused:
        return None
    return best


def prefers_json(accept: bytes | None) -> bool:
    """Does the client ask for JSON rather than HTML? Only if it names JSON with more weight."""
    if accept is None:
        return False
    given = weights(accept)
    json = given.get(b"application/json", 0.0)
    html = max(given.get(b"text/html", 0.0), given.get(b"application/xhtml+xml", 0.0))
    return json > html
