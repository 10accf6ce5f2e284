"""Request, response and error of the HTTP client for control traffic (no I/O)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

SECONDS = 10.0
MAX_BYTES = 256 * 1024
_SUCCESS = range(200, 300)


class HttpError(Exception):
    """The request has no usable response. The message is a clause with the reason.

    `ended` is true if the peer closed the connection. Servers that require a client certificate do
    so.
    """

    def __init__(self, clause: str, *, ended: bool = False) -> None:
        super().__init__(clause)
        self.ended = ended


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request to a URL, with its limits.

    `operator_named` is true if the operator (not an API caller) configured the URL, which permits
    more addresses. `certificate` is the PEM text of a client certificate and its key. `seconds`
    limits the time from name resolution to the last byte. A response body of more than `max_bytes`
    is truncated if `cut` is set; otherwise it is an error.
    """

    method: str
    url: str
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    operator_named: bool = False
    certificate: str = field(default="", repr=False)
    seconds: float = SECONDS
    max_bytes: int = MAX_BYTES
    cut: bool = False


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response of any status. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def accepted(self) -> bool:
        """Whether the status is 2xx."""
        return self.status in _SUCCESS
