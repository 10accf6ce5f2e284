"""Configure the trace exporter from OpenTelemetry's environment variables."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from urllib.parse import unquote, urlsplit

from toolbus_common.observability.trace_context import Sampler
from toolbus_common.observability.tracing.sampling import DEFAULT, SamplerError, sampler_of

DEFAULT_ENDPOINT = "http://localhost:4318"
PROTOCOL = "http/protobuf"
_PREFIX, _TRACES = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"


class TracingError(ValueError):
    """A variable has a value that is not supported; the message names valid ones."""


@dataclass(frozen=True, slots=True)
class Exporting:
    """Configure an exporter. Times are in seconds; `resource` holds attributes of every service."""

    endpoint: str
    sampler: Sampler
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 10.0
    gzip: bool = False
    ca: str = ""
    service: str = ""
    resource: Mapping[str, str] = field(default_factory=dict)
    delay: float = 5.0
    most_waiting: int = 2048
    most_sent: int = 512

    def resource_of(self, service: str) -> dict[str, str]:
        """Return the resource attributes of one service of this process."""
        attributes = {
            "service.name": f"toolbus-{service}",
            "service.namespace": "toolbus",
            "service.instance.id": _INSTANCE,
            "process.pid": str(os.getpid()),
            **self.resource,
        }
        return {**attributes, "service.name": self.service} if self.service else attributes


def exporting(environ: Mapping[str, str]) -> Exporting | None:
    """Return the exporter's options; None if traces are disabled. Raises `TracingError`."""
    if _true(environ, "OTEL_SDK_DISABLED") or not _wanted(environ):
        return None
    protocol = _of_traces(environ, "PROTOCOL") or PROTOCOL
    if protocol != PROTOCOL:
        raise TracingError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; Toolbus supports only {PROTOCOL} "
            "(port 4318 of most collectors)."
        )
    try:
        sampler = sampler_of(
            environ.get("OTEL_TRACES_SAMPLER") or DEFAULT,
            environ.get("OTEL_TRACES_SAMPLER_ARG", ""),
        )
    except SamplerError as error:
        raise TracingError(str(error)) from error
    resource = dict(_pairs(environ, "OTEL_RESOURCE_ATTRIBUTES"))
    return Exporting(
        endpoint=_endpoint(environ),
        sampler=sampler,
        headers=_headers(environ),
        timeout=_number(environ, _either(environ, "TIMEOUT"), 10_000) / 1000,
        gzip=_of_traces(environ, "COMPRESSION") == "gzip",
        ca=_of_traces(environ, "CERTIFICATE"),
        service=environ.get("OTEL_SERVICE_NAME", "") or resource.pop("service.name", ""),
        resource=resource,
        delay=_number(environ, "OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000,
        most_waiting=max(1, int(_number(environ, "OTEL_BSP_MAX_QUEUE_SIZE", 2048))),
        most_sent=max(1, int(_number(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512))),
    )


def _wanted(environ: Mapping[str, str]) -> bool:
    """Return whether traces are enabled: only if an endpoint or exporter is set."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "")
    if exporter not in ("", "otlp", "none"):
        raise TracingError(f"OTEL_TRACES_EXPORTER is {exporter!r}; it must be otlp or none.")
    return exporter == "otlp" or (not exporter and bool(_of_traces(environ, "ENDPOINT")))


def _endpoint(environ: Mapping[str, str]) -> str:
    """Return the endpoint for traces: its own variable, else below the general one."""
    own = environ.get(f"{_TRACES}ENDPOINT", "")
    base = environ.get(f"{_PREFIX}ENDPOINT", "") or DEFAULT_ENDPOINT
    endpoint = own or f"{base.rstrip('/')}/v1/traces"
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TracingError("OTEL_EXPORTER_OTLP_ENDPOINT must be an http:// or https:// address.")
    return endpoint


def _headers(environ: Mapping[str, str]) -> dict[str, str]:
    headers = dict(_pairs(environ, _either(environ, "HEADERS")))
    if any(not (name + value).isprintable() for name, value in headers.items()):
        raise TracingError("OTEL_EXPORTER_OTLP_HEADERS contains a line break; write name=value,….")
    return headers


def _pairs(environ: Mapping[str, str], name: str) -> Iterator[tuple[str, str]]:
    """Yield comma-separated `name=value` pairs, percent-decoded."""
    for each in filter(str.strip, environ.get(name, "").split(",")):
        key, equals, value = each.partition("=")
        if not equals or not key.strip():
            raise TracingError(f"{name} must be name=value pairs separated by commas.")
        yield key.strip(), unquote(value.strip())


def _of_traces(environ: Mapping[str, str], name: str) -> str:
    return environ.get(_either(environ, name), "")


def _either(environ: Mapping[str, str], name: str) -> str:
    """Return the name of the variable for traces if it is set, else of the general one."""
    return f"{_TRACES}{name}" if environ.get(f"{_TRACES}{name}") else f"{_PREFIX}{name}"


def _true(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").strip().lower() == "true"


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    try:
        number = float(environ.get(name) or default)
    except ValueError:
        number = -1
    if not 0 < number < 1e9:  # noqa: PLR2004 - no setting is as large
        raise TracingError(f"{name} must be a number above 0.")
    return number


_INSTANCE = token_hex(8)
