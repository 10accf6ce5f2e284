"""Export of events: files on a schedule, or live forwarding to a SIEM."""

import re
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from toolbus_common.config.base import ConfigModel, Name

EventPattern = Annotated[str, Field(pattern=r"^[a-z*?.]{1,64}$")]  # call.*, approval.granted, *
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_BUCKET = re.compile(
    r"(s3|gs|az)://([a-z0-9][a-z0-9._-]{1,61}[a-z0-9])(?:/([A-Za-z0-9!_.*'()=/-]*))?"
)
_SINK = re.compile(r"^(?:https?|syslog\+(?:tls|tcp|udp))://[^/\s]+")
# The permitted credentials of each kind of bucket. Below: the combinations, one of which must be
# complete.
CREDENTIALS = {
    "": frozenset[str](),
    "s3": frozenset({"access_key", "secret_key", "session_token"}),
    "gs": frozenset({"service_account"}),
    "az": frozenset({"account_name", "account_key", "sas_token"}),
}
_REQUIRED = {
    "s3": ({"access_key", "secret_key"},),
    "gs": ({"service_account"},),
    "az": ({"account_key"}, {"sas_token"}),
}
_NEEDED = "must be s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"


class Leaving(ConfigModel):
    """A selection of events by name and customer. An empty `customers` selects all customers."""

    events: tuple[EventPattern, ...] = Field(default=("*",), min_length=1, max_length=64)
    customers: tuple[Name, ...] = Field(default=(), max_length=1024)

    def wants(self, event: str, customer: str) -> bool:
        """Return whether an event of this name and customer is selected."""
        if self.customers and customer not in self.customers:
            return False
        return any(fnmatchcase(event, pattern) for pattern in self.events)


class Place(ConfigModel):
    """A target for files: a directory on audit's machine, or a bucket.

    A bucket is s3://bucket/prefix, gs://bucket/prefix (Google Cloud Storage) or
    az://container/prefix (Azure Blob Storage). `endpoint` is the URL of an S3-compatible store or
    of an Azure account. The default is Amazon S3 in the `region`. Each of the `credentials` can be
    a reference to a secret, which audit resolves:

    - s3: `access_key`, `secret_key` and optionally `session_token`;
    - gs: `service_account`, a key in Google's JSON form;
    - az: `account_key` or `sas_token`. `account_name` is required if the endpoint's host does not
      begin with it.
    """

    to: str = Field(max_length=1024)
    every: str = Field(default="1h", pattern=r"^[1-9][0-9]{0,3}[smhd]$")
    endpoint: str = ""
    region: str = Field(default="us-east-1", pattern=r"^[a-z0-9-]{1,32}$")
    credentials: dict[str, str] = Field(default_factory=dict, repr=False)

    @field_validator("to")
    @classmethod
    def _is_target(cls, to: str) -> str:
        if ":" in to.partition("/")[0]:
            found = _BUCKET.fullmatch(to)
            if not found:
                raise ValueError(
                    f"{_NEEDED}; the bucket must be in lower case, and the prefix may contain "
                    "only letters, digits and !_.*'()=/-"
                )
            if not {"", ".", ".."}.isdisjoint((found[3] or "x").removesuffix("/").split("/")):
                raise ValueError("must have no empty, '.' or '..' part in the prefix")
        elif not to.startswith("/") or ".." in to.split("/"):
            raise ValueError(f"{_NEEDED}, or the absolute path of a directory")
        return to

    @field_validator("endpoint")
    @classmethod
    def _is_http(cls, endpoint: str) -> str:
        if endpoint and not re.fullmatch(r"https?://[^/\s]+/?", endpoint):
            raise ValueError("must be https://host, or http://host:port of a private network")
        return endpoint.rstrip("/")

    @model_validator(mode="after")
    def _has_credentials(self) -> Self:
        allowed = CREDENTIALS[self.kind]
        if unknown := set(self.credentials) - allowed:
            names = ", ".join(sorted(allowed)) or "for buckets only"
            raise ValueError(f"credentials are {names}, not {min(unknown)}")
        required = _REQUIRED.get(self.kind, ())
        if required and not any(each <= set(self.credentials) for each in required):
            forms = " or ".join(f"{{{', '.join(sorted(each))}}}" for each in required)
            raise ValueError(f"needs 'credentials' for a bucket: {forms}")
        if self.kind == "az" and not self.endpoint:
            raise ValueError("needs 'endpoint', such as https://ACCOUNT.blob.core.windows.net")
        return self

    @property
    def in_bucket(self) -> bool:
        """Whether the target is a bucket, not a directory."""
        return bool(self.kind)

    @property
    def kind(self) -> str:
        """The kind of bucket: s3, gs or az; empty for a directory."""
        return "" if self.to.startswith("/") else self.to.partition("://")[0]

    @property
    def bucket(self) -> str:
        """The name of the bucket or container."""
        return self.to.partition("://")[2].partition("/")[0]

    @property
    def prefix(self) -> str:
        """The prefix of all names in the bucket, with a trailing slash unless empty."""
        prefix = self.to.partition("://")[2].partition("/")[2].rstrip("/")
        return f"{prefix}/" if prefix else ""

    @property
    def account(self) -> str:
        """The account of an Azure endpoint: the first label of its host."""
        return (urlsplit(self.endpoint).hostname or "").partition(".")[0]

    @property
    def endpoint_url(self) -> str:
        """The URL of the store, without a trailing slash; empty for a directory."""
        defaults = {
            "s3": f"https://s3.{self.region}.amazonaws.com",
            "gs": "https://storage.googleapis.com",
        }
        return self.endpoint or defaults.get(self.kind, "")

    @property
    def seconds(self) -> int:
        """The interval between two files, in seconds."""
        return int(self.every[:-1]) * _SECONDS[self.every[-1]]

    @property
    def bucket_url(self) -> str:
        """The URL of the bucket's objects, without a trailing slash; empty for a directory."""
        if not self.in_bucket:
            return ""
        return f"{self.endpoint_url}/{self.to.partition('://')[2].rstrip('/')}"


class Export(Place, Leaving):
    """An export of events to files, at the interval `every`."""

    format: Literal["jsonl", "parquet", "ocsf"] = "jsonl"


class Sink(Leaving):
    """A SIEM that receives events live, over syslog (RFC 5424) or HTTP POST in the form `shape`.

    `headers` can contain references to secrets, which audit resolves. A new sink receives only new
    events. With `begin: oldest`, it also receives the events that are still in the stream.
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
