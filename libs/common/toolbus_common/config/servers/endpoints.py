"""Addresses of a server, and the selection of operations of a described API."""

import re

from pydantic import Field, field_validator

from toolbus_common.config.base import ConfigModel, Patterns
from toolbus_common.secrets import REFERENCE

_PROXY = re.compile(rf"http://[^/@\s]+/?|{REFERENCE.pattern}")
_PROBE_PATH = re.compile(r"/[!-~]*")


def http_url(url: str) -> str:
    """Return the URL unchanged.

    Raises `ValueError` unless it is empty or an HTTP URL with a host.
    """
    if url and not re.match(r"^https?://[^/\s]+", url):
        raise ValueError("must begin with http:// or https:// and name a host")
    return url


def grpc_url(grpc: str) -> str:
    """Return the address of a gRPC server unchanged. Raises `ValueError` unless it is valid."""
    if grpc and not re.fullmatch(r"grpcs?://[A-Za-z0-9.\[\]:_-]+:\d{1,5}", grpc):
        raise ValueError("must be grpc://host:port, or grpcs://host:port over TLS")
    return grpc


def proxy_url(proxy: str) -> str:
    """Return the address of a proxy unchanged. Raises `ValueError` if it holds a plain password."""
    if proxy not in ("", "none") and not _PROXY.fullmatch(proxy):
        raise ValueError(
            "must be none, or http://host:port; with a password, a whole reference: ${env:NAME}"
        )
    return proxy


def probe_path(path: str) -> str:
    """Return the path of a health probe unchanged. Raises `ValueError` unless it is valid."""
    if path and not _PROBE_PATH.fullmatch(path):
        raise ValueError("must begin with / and contain only printable ASCII without blanks")
    return path


def as_http(grpc: str) -> str:
    """Return the URL of a gRPC server with http:// or https://."""
    return f"http{grpc[4:]}" if grpc.startswith("grpc") else grpc


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
    path (`GET /contacts/*`). Of an agent, it is the id or a tag of a skill.
    """

    include: Patterns = ("*",)
    exclude: Patterns = ()
