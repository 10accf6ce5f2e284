"""Where a server is reached: its URLs, and the operations that a described API offers."""

import re

from pydantic import Field, field_validator

from toolbus_common.config.base import ConfigModel, Patterns


def http_url(url: str) -> str:
    """Return a URL that begins with http:// or https://. Raises `ValueError`."""
    if url and not re.match(r"^https?://[^/\s]+", url):
        raise ValueError("must begin with http:// or https:// and name a host")
    return url


def as_http(grpc: str) -> str:
    """Return the URL of a gRPC server as others know it."""
    return grpc.replace("grpc", "http", 1) if grpc else ""


class Replica(ConfigModel):
    """One of several addresses of a server, and its share of the calls beside the others'."""

    url: str = Field(min_length=1)
    weight: int = Field(default=1, ge=1, le=100)

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        return http_url(url)


class Operations(ConfigModel):
    """Which operations of an OpenAPI document become tools.

    A pattern is an operationId, `tag:billing`, `/contacts/*` or `GET /contacts/*`.
    """

    include: Patterns = ("*",)
    exclude: Patterns = ()
