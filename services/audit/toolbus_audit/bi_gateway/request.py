"""Parser of HTTP requests as ClickHouse's clients send them (no I/O)."""

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from toolbus_audit.bi_gateway.errors import BAD_ARGUMENTS, READ_ONLY, UNKNOWN_DATABASE, GatewayError

LONGEST_SQL = 256 * 1024
MAX_PARAMETERS = 256
LONGEST_NAME = 64

# Parameters of the HTTP transport: ignored, and not settings of the engine.
_TRANSPORT = re.compile(
    r"query|database|default_format|query_id|user|password|session_id|session_timeout|session_check"
    r"|compress|decompress|client_protocol_version|role|wait_end_of_query|buffer_size|quota_key"
    r"|enable_http_compression|send_progress_in_http_headers|http_\w+|network_compression_method"
    r"|log_queries|log_comment|readonly|add_http_cors_header|cancel_http_readonly_queries_on_client_close"
)
# Settings of the output format. They can neither name a file nor raise a limit.
_SETTINGS = re.compile(
    r"output_format_(?:json_quote_(?:64bit_integers|64bit_floats|denormals|decimals)"
    r"|json_named_tuples_as_objects|decimal_trailing_zeros|csv_crlf_end_of_line)"
    r"|date_time_output_format|session_timezone|join_use_nulls|extremes|use_client_time_zone"
    r"|output_format_native_write_json_as_string|date_time_input_format"
)
_BOUNDS = ("max_execution_time", "max_result_rows", "max_block_size")
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,6})?")
_NAME = re.compile(r"\w{1,64}")


@dataclass(frozen=True, slots=True)
class GatewayRequest:
    """Parsed request. `settings` contains only settings that a reader may choose."""

    user: str
    secret: str = field(repr=False)
    sql: str
    database: str = ""
    format: str = "TabSeparated"
    query_id: str = ""
    protocol: int = 0
    gzip: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


def parse_request(query: str, headers: Mapping[str, str], body: bytes) -> GatewayRequest:
    """Parse a request. `headers` have lower-case names. Raises `GatewayError`."""
    parameters = _pairs(query)
    user, secret = _credentials(parameters, headers)
    text = _text(body)
    sql = "\n".join(part for part in (parameters.get("query", ""), text) if part)
    if len(sql) > LONGEST_SQL:
        raise GatewayError(
            BAD_ARGUMENTS, f"The statement exceeds {LONGEST_SQL} characters; shorten it."
        )
    return GatewayRequest(
        user=user,
        secret=secret,
        sql=sql,
        database=parameters.get("database") or headers.get("x-clickhouse-database", ""),
        format=headers.get("x-clickhouse-format")
        or parameters.get("default_format")
        or "TabSeparated",
        query_id=parameters.get("query_id", "")[:LONGEST_NAME],
        protocol=_number(parameters.get("client_protocol_version", "")),
        gzip=parameters.get("enable_http_compression") == "1"
        and "gzip" in headers.get("accept-encoding", ""),
        parameters={
            name.removeprefix("param_"): value
            for name, value in parameters.items()
            if name.startswith("param_") and _NAME.fullmatch(name)
        },
        settings=_settings(parameters),
    )


def _pairs(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError as error:
        raise GatewayError(
            BAD_ARGUMENTS, f"The URL has more than {MAX_PARAMETERS} parameters; send fewer."
        ) from error
    return dict(pairs)


def _credentials(parameters: Mapping[str, str], headers: Mapping[str, str]) -> tuple[str, str]:
    """Return user and secret from the headers, from basic authentication, or from the URL."""
    if user := headers.get("x-clickhouse-user"):
        return user, headers.get("x-clickhouse-key", "")
    kind, _, encoded = headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        try:
            user, _, secret = b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            return "", ""
        return user, secret
    return parameters.get("user", ""), parameters.get("password", "")


def _settings(parameters: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, value in parameters.items():
        if _TRANSPORT.fullmatch(name) or name.startswith("param_"):
            continue
        if name in _BOUNDS and _NUMBER.fullmatch(value):
            found[name] = value
        elif _SETTINGS.fullmatch(name):
            found[name] = value[:LONGEST_NAME]
        else:
            raise GatewayError(
                READ_ONLY, f"Readers cannot change the setting '{name[:LONGEST_NAME]}'; remove it."
            )
    return found


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise GatewayError(
            BAD_ARGUMENTS, "The statement is not UTF-8; send it as UTF-8."
        ) from error


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 9 else 0  # noqa: PLR2004


__all__ = ["UNKNOWN_DATABASE", "GatewayRequest", "parse_request"]
