"""The caller's identity, sent to a server with each request."""

import re

from pydantic import Field, field_validator

from toolbus_common.config.base import ConfigModel
from toolbus_common.mcp.param_headers import TOKEN

# Headers that have another meaning, and hop-by-hop headers.
_TAKEN = frozenset(
    {
        "accept", "authorization", "baggage", "connection", "content-length", "content-type",
        "cookie", "dpop", "expect", "host", "keep-alive", "last-event-id", "te", "traceparent",
        "tracestate", "trailer", "transfer-encoding", "upgrade", "user-agent",
    }
)  # fmt: skip
_METADATA = re.compile(r"[A-Za-z0-9_.-]+")
_OTHERS = ("mcp-", "grpc-", "proxy-", "sec-", ":")


class ServerIdentity(ConfigModel):
    """A signed header with the caller's identity, in each request to the server.

    The server verifies the signature.
    """

    header: str = Field(default="Toolbus-Identity", max_length=64)

    @property
    def fits_grpc(self) -> bool:
        """Whether gRPC permits the header as text metadata."""
        return bool(_METADATA.fullmatch(self.header)) and not self.header.lower().endswith("-bin")

    @field_validator("header")
    @classmethod
    def _is_free(cls, header: str) -> str:
        if not TOKEN.fullmatch(header):
            raise ValueError("is not a valid header name; remove it to use Toolbus-Identity")
        if header.lower() in _TAKEN or header.lower().startswith(_OTHERS):
            raise ValueError(f"'{header}' has another meaning; set another header, or remove it")
        return header
