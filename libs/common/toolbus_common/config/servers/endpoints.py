"""Addresses of a server, and the selection of operations of a described API."""

import re

from pydantic import Field, field_validator

from toolbus_common.config.base import ConfigModel, Patterns


def http_url(url: str) -> str:
    """Return the URL unchanged.

    Raises `ValueError` unless it is empty or an HTTP URL with a host.
    """
    if url and not re.match(r"^https?://[^/\s]+", url):
        raise ValueError("must begin with http:// or https:// and name a host")
    return url


def as_http(grpc: str) -> str:
    """Return the URL of a gRPC server with http:// or https://."""
    return grpc.replace("grpc", "http", 1) if grpc else ""


class Replica(ConfigModel):
    """One of several addresses of a server. `weight` is its relative share of the calls."""

    url: str = Field(min_length=1)
    weight: int = Field(default=1, ge=1, le=100)

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        return http_url(url)


class Operations(ConfigModel):
    """The operations of an OpenAPI document that become tools.

    A pattern is an operationId, a tag (`tag:billing`), a path (`/contacts/*`), or a method with a
    path (`GET /contacts/*`).
    """

    include: Patterns = ("*",)
    exclude: Patterns = ()
