"""Which answer a Head gets: the method's, the file's, or the page for a refusal.

The only place that knows every kind of answer. Not here: sockets, framing, the log.
"""

from __future__ import annotations

from . import pages
from .errors import HTTPError, Reason
from .grammar import METHODS
from .listing import POLICY
from .message import PHRASES, Head, Response
from .static import ALLOW, StaticSite

_NOSNIFF = (b"X-Content-Type-Options", b"nosniff")
_HTML = (b"Content-Type", b"text/html; charset=utf-8")
# Statuses whose meaning a stranger may know; a 5xx says nothing about our inside.
_SAYS_WHY = range(400, 500)


class Router:
    """answer(head) for a directory."""

    def __init__(self, site: StaticSite) -> None:
        self._site = site

    def answer(self, head: Head) -> Response:
        """Never raises HTTPError: a refusal is an answer too."""
        try:
            return self._answer(head)
        except HTTPError as error:
            return refusal(error)

    def _answer(self, head: Head) -> Response:
        if head.method in (b"GET", b"HEAD"):
            return self._site.answer(head)
        if head.method == b"OPTIONS":
            return Response(204, (ALLOW,))
        if head.method in METHODS:
            # After CONNECT a client may send anything: what follows is no request of ours.
            close = head.method == b"CONNECT"
            raise HTTPError(Reason.METHOD_NOT_ALLOWED, fields=(ALLOW,), close=close)
        raise HTTPError(Reason.METHOD_UNKNOWN)


# Where nobody knows better: what is missing is a descriptor, and they come and go.
_SOON = (b"Retry-After", b"1")


def refusal(error: HTTPError) -> Response:
    """The page for a refusal."""
    reason = error.reason
    meaning = reason.meaning if reason.status in _SAYS_WHY else ""
    page = pages.error_page(reason.status, PHRASES[reason.status], meaning)
    fields = (_HTML, _NOSNIFF, POLICY, *error.fields)
    if reason.status == 503 and not any(name == b"Retry-After" for name, _ in error.fields):
        fields = (*fields, _SOON)
    return Response(reason.status, fields, (page,), reason=reason, close=error.close)
