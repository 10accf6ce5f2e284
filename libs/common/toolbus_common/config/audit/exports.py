"""Export of events: files on a schedule, or live forwarding to a SIEM."""

import re
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from toolbus_common.config.base import ConfigModel, Name

EventPattern = Annotated[str, Field(pattern=r"^[a-z*?.]{1,64}$")]  # call.*, approval.granted, *
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[A-Za-z0-9!_.*'()=/-]*)?")
_SINK = re.compile(r"^(?:https?|syslog\+(?:tls|tcp|udp))://[^/\s]+")
S3_KEYS = frozenset({"access_key", "secret_key", "session_token"})


class Leaving(ConfigModel):
    """A selection of events by name and customer. No customers means all customers."""

    events: tuple[EventPattern, ...] = Field(default=("*",), min_length=1, max_length=64)
    customers: tuple[Name, ...] = Field(default=(), max_length=1024)

    def wants(self, event: str, customer: str) -> bool:
        """Return whether an event of this name and customer is selected."""
        if self.customers and customer not in self.customers:
            return False
        return any(fnmatchcase(event, pattern) for pattern in self.events)


class Place(ConfigModel):
    """A target for files: a directory on audit's machine, or s3://bucket/prefix.

    `endpoint` is the URL of an S3-compatible store; the default is Amazon S3 in the `region`.
    `credentials` are `access_key`, `secret_key` and optionally `session_token`; each may be a
    reference to a secret, resolved by audit.
    """

    to: str = Field(max_length=1024)
    every: str = Field(default="1h", pattern=r"^[1-9][0-9]{0,3}[smhd]$")
    endpoint: str = ""
    region: str = Field(default="us-east-1", pattern=r"^[a-z0-9-]{1,32}$")
    credentials: dict[str, str] = Field(default_factory=dict, repr=False)

    @field_validator("to")
    @classmethod
    def _is_target(cls, to: str) -> str:
        if to.startswith("s3:"):
            if not _BUCKET.fullmatch(to):
                raise ValueError("must be s3://bucket/prefix, with plain letters and digits")
        elif not to.startswith("/") or ".." in to.split("/"):
            raise ValueError("must be s3://bucket/prefix, or the absolute path of a directory")
        return to

    @field_validator("endpoint")
    @classmethod
    def _is_http(cls, endpoint: str) -> str:
        if endpoint and not re.fullmatch(r"https?://[^/\s]+/?", endpoint):
            raise ValueError("must be https://host, or http://host:port of a private network")
        return endpoint.rstrip("/")

    @model_validator(mode="after")
    def _has_credentials(self) -> Self:
        if unknown := set(self.credentials) - S3_KEYS:
            raise ValueError(f"credentials are {', '.join(sorted(S3_KEYS))}, not {min(unknown)}")
        if self.in_bucket and not {"access_key", "secret_key"} <= set(self.credentials):
            raise ValueError("needs credentials: {access_key, secret_key} for a bucket")
        return self

    @property
    def in_bucket(self) -> bool:
        """Whether the target is a bucket, not a directory."""
        return self.to.startswith("s3://")

    @property
    def seconds(self) -> int:
        """The interval in seconds."""
        return int(self.every[:-1]) * _SECONDS[self.every[-1]]

    @property
    def bucket_url(self) -> str:
        """The URL of the bucket's objects, without a trailing slash; empty for a directory."""
        if not self.in_bucket:
            return ""
        host = self.endpoint or f"https://s3.{self.region}.amazonaws.com"
        return f"{host}/{self.to.removeprefix('s3://').rstrip('/')}"


class Export(Place, Leaving):
    """Files written at the interval `every`."""

    format: Literal["jsonl", "parquet", "ocsf"] = "jsonl"


class Sink(Leaving):
    """A SIEM that receives events live: over syslog (RFC 5424), or in POSTs of the form `shape`.

    `headers` may have references to secrets, resolved by audit. A new sink receives only new
    events, or, with `begin: oldest`, also the events that the stream still has.
    """

    url: str = Field(max_length=1024)
    format: Literal["jsonl", "ocsf"] = "jsonl"
    shape: Literal["ndjson", "splunk", "elastic"] = "ndjson"
    index: str = Field(default="toolbus-events", pattern=r"^[a-z0-9][a-z0-9._-]{0,127}$")
    headers: dict[str, str] = Field(default_factory=dict)
    begin: Literal["now", "oldest"] = "now"

    @field_validator("url")
    @classmethod
    def _is_sink_url(cls, url: str) -> str:
        if not _SINK.match(url):
            raise ValueError("must begin with https://, syslog+tls://, syslog+tcp:// or the like")
        if url.startswith("syslog"):
            _check_syslog(url)
        return url

    @property
    def transport(self) -> str:
        """The transport: http, tls, tcp or udp."""
        scheme = self.url.partition("://")[0]
        return scheme.removeprefix("syslog+") if scheme.startswith("syslog") else "http"


def _check_syslog(url: str) -> None:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if not port or parts.path not in ("", "/") or parts.query:
        raise ValueError("must be host and port alone, such as syslog+tls://siem.example:6514")
