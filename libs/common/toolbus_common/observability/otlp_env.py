"""Read from OpenTelemetry's environment variables which signals are exported by OTLP.

The SDK reads the other variables itself; https://opentelemetry.io/docs/specs/otel/configuration/
lists them. Its modules are imported only by a process that exports something.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

PROTOCOL = "http/protobuf"
_PREFIX = "OTEL_EXPORTER_OTLP_"
# Headers that the SDK accepts. It logs any other with its value, which is a secret.
_HEADER = re.compile(r"[!#-'*+\-.0-9A-Z^-z|~]+[ \t]*=[ \t]*[ !#-+\--:<-\[\]-~]*")


class OtlpError(ValueError):
    """A variable has a value that is not supported; the message names valid ones."""


@contextmanager
def reading_variables() -> Iterator[None]:
    """Let the SDK read its variables in this block. Raises `OtlpError` for an invalid value."""
    try:
        yield
    except ValueError as error:
        raise OtlpError(f"A variable OTEL_… has an invalid value: {error}") from error


def exports_traces(environ: Mapping[str, str]) -> bool:
    """Return whether spans are exported: if an endpoint or the exporter is set.

    Raises:
        OtlpError: a variable has an invalid value.

    """
    exporter = _exporter(environ, "TRACES")
    wanted = exporter == "otlp" or (not exporter and bool(_of(environ, "TRACES", "ENDPOINT")))
    return wanted and _checked(environ, "TRACES")


def exports_metrics(environ: Mapping[str, str]) -> bool:
    """Return whether metrics are exported: only on request, because Prometheus may scrape them.

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
    """Return true for valid values. The SDK would report invalid ones only at every export."""
    protocol = _of(environ, signal, "PROTOCOL") or PROTOCOL
    if protocol != PROTOCOL:
        raise OtlpError(
            f"{_PREFIX}PROTOCOL is {protocol!r}; Toolbus speaks {PROTOCOL}, to port 4318 of most "
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
    """Return the variable of a signal if it is set, else the general one."""
    return environ.get(f"{_PREFIX}{signal}_{name}") or environ.get(f"{_PREFIX}{name}", "")
