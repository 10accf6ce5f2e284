"""Signals to export by OTLP, according to OpenTelemetry's environment variables.

The SDK reads the other variables itself; https://opentelemetry.io/docs/specs/otel/configuration/
lists them. Only a process that exports a signal imports the modules of the SDK.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

PROTOCOL = "http/protobuf"
_PREFIX = "OTEL_EXPORTER_OTLP_"
# Headers that the SDK accepts. It logs every other header with its value, which is a secret.
_HEADER = re.compile(r"[!#-'*+\-.0-9A-Z^-z|~]+[ \t]*=[ \t]*[ !#-+\--:<-\[\]-~]*")


class OtlpError(ValueError):
    """A variable has an unsupported value. The message contains the valid values."""


@contextmanager
def reading_variables() -> Iterator[None]:
    """Convert errors of the SDK about its variables to `OtlpError` in this context."""
    try:
        yield
    except ValueError as error:
        raise OtlpError(f"Correct the value of a variable OTEL_…: {error}") from error


def exports_traces(environ: Mapping[str, str]) -> bool:
    """Return whether spans are exported. An endpoint or an exporter variable enables the export.

    Raises:
        OtlpError: a variable has an invalid value.

    """
    exporter = _exporter(environ, "TRACES")
    wanted = exporter == "otlp" or (not exporter and bool(_of(environ, "TRACES", "ENDPOINT")))
    return wanted and _checked(environ, "TRACES")


def exports_metrics(environ: Mapping[str, str]) -> bool:
    """Return whether metrics are exported by OTLP.

    The variables for metrics must enable it, because Prometheus usually reads the metrics.

    Raises:
        OtlpError: a variable has an invalid value.

    """
    exporter = _exporter(environ, "METRICS")
    own_endpoint = environ.get(f"{_PREFIX}METRICS_ENDPOINT", "")
    wanted = exporter == "otlp" or (not exporter and bool(own_endpoint))
    return wanted and _checked(environ, "METRICS")


def _exporter(environ: Mapping[str, str], signal: str) -> str:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "none"
    name = f"OTEL_{signal}_EXPORTER"
    exporter = environ.get(name, "")
    if exporter not in ("", "otlp", "none"):
        raise OtlpError(f"{name} is {exporter!r}; it must be otlp or none.")
    return exporter


def _checked(environ: Mapping[str, str], signal: str) -> bool:
    """Return true.

    Raises `OtlpError` for an invalid value, because the SDK reports it only later.
    """
    protocol = _of(environ, signal, "PROTOCOL") or PROTOCOL
    if protocol != PROTOCOL:
        raise OtlpError(
            f"{_PREFIX}PROTOCOL is {protocol!r}; Toolbus supports {PROTOCOL}, on port 4318 of most "
            "collectors."
        )
    parts = urlsplit(_of(environ, signal, "ENDPOINT") or "http://localhost:4318")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OtlpError(f"{_PREFIX}ENDPOINT must be an http:// or https:// address.")
    for header in filter(str.strip, _of(environ, signal, "HEADERS").split(",")):
        if not _HEADER.fullmatch(header.strip()) or not unquote(header.strip()).isprintable():
            raise OtlpError(
                f"{_PREFIX}HEADERS must be name=value pairs separated by commas, with values "
                "percent-encoded."
            )
    return True


def _of(environ: Mapping[str, str], signal: str, name: str) -> str:
    """Return the variable for one signal if it is set, otherwise the general variable."""
    return environ.get(f"{_PREFIX}{signal}_{name}") or environ.get(f"{_PREFIX}{name}", "")
