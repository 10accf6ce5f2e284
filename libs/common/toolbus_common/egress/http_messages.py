"""Request, response and error of the HTTP client for control traffic. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

SECONDS = 10.0
MAX_BYTES = 256 * 1024
_SUCCESS = range(200, 300)


class HttpError(Exception):
    """No usable response; the message is a clause that says why.

    `ended` is set if the peer closed the connection, as servers do that require a client
    certificate.
    """

    def __init__(self, clause: str, *, ended: bool = False) -> None:
        super().__init__(clause)
        self.ended = ended


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """Request to a URL, and the limits of its exchange.

    `operator_named`: the operator (not an API caller) configured the URL, which widens the
    addresses allowed. `certificate`: PEM text of a client certificate and its key. `seconds` limits
    the whole exchange, from name resolution to the last byte. A body of more than `max_bytes` is
    cut if `cut` is set, else it is an error.
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
    """Response of any status; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def accepted(self) -> bool:
        """Whether the status is 2xx."""
        return self.status in _SUCCESS
