"""Every way of refusing, breaking off or dying, by number; and the exceptions that carry one.

A `Reason` is the last field of each log line. Its number never changes its meaning; a new reason
takes a new number. The status that belongs to a reason stands here and nowhere else.
This file imports nothing of pyweb and must not know how an answer is made.
"""

from __future__ import annotations

from enum import IntEnum

# Exit codes of the command (sysexits are of no use to systemd; these three are).
EXIT_DONE = 0
EXIT_CANNOT_START = 1
EXIT_USAGE = 2


class Reason(IntEnum):
    """Number, status of the answer (0: none is sent), meaning."""

    status: int
    meaning: str

    def __new__(cls, number: int, status: int, meaning: str) -> Reason:
        member = int.__new__(cls, number)
        member._value_ = number
        member.status = status
        member.meaning = meaning
        return member

    DONE = 0, 200, "answered in full"

    # The client went away, or was too slow.
    CLIENT_LEFT = 1, 0, "the client closed before its request was whole"
    CLIENT_RESET = 2, 0, "the client closed or reset while it was being answered"
    HEAD_TIMEOUT = 3, 408, "the head did not arrive in time"
    BODY_TIMEOUT = 4, 408, "the body did not arrive in time"
    WRITE_TIMEOUT = 5, 0, "the client did not take the answer in time"

    # Syntax of a head (RFC 9112 sections 2 to 5). The compiled parser uses these numbers too:
    # _fastparse.pxd names them again, and a test holds the two lists against each other.
    BAD_METHOD = 20, 400, "no method where the request begins"
    BAD_TARGET = 21, 400, "a character that a request target can't have"
    BAD_VERSION = 22, 400, "no HTTP version at the end of the request line"
    BAD_FIELD_NAME = 23, 400, "a field name that is empty or not a token"
    BAD_FIELD_VALUE = 24, 400, "a control character in a field value"
    OBS_FOLD = 25, 400, "a field line that begins with white space"
    BARE_CR = 26, 400, "CR without LF"
    BARE_LF = 27, 400, "LF without CR"
    LINE_TOO_LONG = 28, 414, "the request line is longer than --limit-line"
    HEAD_TOO_LARGE = 29, 431, "the head is larger than --limit-head"
    TOO_MANY_FIELDS = 30, 431, "more fields than --limit-fields"
    BAD_CHUNK = 31, 400, "malformed chunked coding"

    # What the head says (RFC 9110, 9112): framing, authority, expectation.
    VERSION_UNKNOWN = 40, 505, "an HTTP version other than 1.x"
    HOST_MISSING = 41, 400, "HTTP/1.1 without Host"
    HOST_REPEATED = 42, 400, "more than one Host"
    HOST_MALFORMED = 43, 400, "Host is not an authority"
    TARGET_FORM = 44, 400, "a target in a form that this method can't have"
    LENGTH_REPEATED = 45, 400, "more than one Content-Length"
    LENGTH_MALFORMED = 46, 400, "Content-Length is not a number"
    LENGTH_AND_CODING = 47, 400, "Content-Length beside Transfer-Encoding"
    CODING_IN_HTTP10 = 48, 400, "Transfer-Encoding in HTTP/1.0"
    CODING_MALFORMED = 49, 400, "Transfer-Encoding does not end with one chunked"
    CODING_UNKNOWN = 50, 501, "an unknown transfer coding"
    BODY_TOO_LARGE = 51, 413, "the body is larger than --max-body"
    EXPECTATION_UNKNOWN = 52, 417, "an expectation other than 100-continue"
    METHOD_UNKNOWN = 53, 501, "an unknown method"

    # The file.
    METHOD_NOT_ALLOWED = 60, 405, "a method that a file does not answer"
    PATH_ENCODING = 61, 400, "percent-encoding that stands for no path"
    NOT_FOUND = 62, 404, "no such file"
    HIDDEN = 63, 404, "a dot file"
    OUTSIDE_ROOT = 64, 404, "a path or symbolic link that leaves the document root"
    FORBIDDEN = 65, 403, "the file's permissions forbid it"
    NOT_A_FILE = 66, 403, "a FIFO, device or socket"
    LISTING_OFF = 67, 403, "a directory without index, and --no-listing"
    PRECONDITION_FAILED = 68, 412, "If-Match or If-Unmodified-Since does not hold"
    RANGE_UNSATISFIABLE = 69, 416, "no byte of the range exists"
    NOT_ACCEPTABLE = 70, 406, "no representation has an acceptable content coding"
    FILE_SHRANK = 71, 0, "the file became shorter while it was being sent"

    # The server.
    PROCESSES_FULL = 80, 503, "no process became free within --timeout-queue"
    CLIENT_SHARE = 81, 503, "this address has --per-client connections already"
    FORK_FAILED = 82, 503, "fork failed until --timeout-queue was over"
    OUT_OF_DESCRIPTORS = 83, 503, "no descriptor or no memory to open with"
    INTERNAL = 84, 500, "a defect in pyweb; stderr has the traceback"
    STORAGE = 85, 500, "the file could not be read"
    ENDED = 86, 0, "ended by the master when --grace was over, or at once by a second signal"
    CHILD_DIED = 87, 500, "its process crashed, or was killed by a signal from elsewhere"
    MASTER_DIED = 88, 0, "the master died, and another was started"
    DISPATCHER_DIED = 89, 0, "the dispatcher died, and with it the connections that were parked"
    NO_MEMORY = 90, 503, "no memory to read the request or to answer it"
    REQUEST_TIMEOUT = 91, 504, "its process hung for --timeout-request, and was ended for it"
    FILLER_DIED = 92, 0, "the filler of the cache died, and another was started"
    ZYGOTE_DIED = 93, 0, "the zygote died, and another was started"


BY_NUMBER: dict[int, Reason] = {int(reason): reason for reason in Reason}


class ParseError(Exception):
    """A head that no grammar lets through. `offset`: the first byte that can't be right."""

    def __init__(self, code: int, offset: int) -> None:
        super().__init__(code, offset)
        self.reason = BY_NUMBER[code]
        self.offset = offset


class HTTPError(Exception):
    """An answer that is not the one that was asked for. The status is the reason's.

    `fields` go into the answer (Allow, Content-Range, Retry-After).
    `close`: nothing more can be read from this connection (framing is lost or refused).
    """

    def __init__(
        self, reason: Reason, *, fields: tuple[tuple[bytes, bytes], ...] = (), close: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fields = fields
        self.close = close


class Disconnected(Exception):
    """The conversation ends without an answer, or in the midst of one."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Ended(BaseException):
    """The master's word to leave now (reason ENDED). Not an Exception: nothing may take it for a
    defect or for the client's doing."""


class UsageError(Exception):
    """What the user asked for can't be: exit code 2. The text names the thing and the cure."""


class StartError(Exception):
    """The system doesn't let us start: exit code 1. The text names the thing and the cure."""
