"""A request as ClickHouse's clients send it: who asks, what, in which format. Pure."""

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from toolbus_audit.bi_gateway.errors import BAD_ARGUMENTS, READ_ONLY, UNKNOWN_DATABASE, RefusedError

LONGEST_SQL = 256 * 1024
MOST_PARAMETERS = 256
LONGEST_NAME = 64

# What belongs to the transport: of no use here, and no setting of the engine.
_TRANSPORT = re.compile(
    r"query|database|default_format|query_id|user|password|session_id|session_timeout|session_check"
    r"|compress|decompress|client_protocol_version|role|wait_end_of_query|buffer_size|quota_key"
    r"|enable_http_compression|send_progress_in_http_headers|http_\w+|network_compression_method"
    r"|log_queries|log_comment|readonly|add_http_cors_header|cancel_http_readonly_queries_on_client_close"
)
# How an answer is written, and nothing that names a file or widens a bound.
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
    """One request. `settings` are only those a reader may choose."""

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


def read(query: str, headers: Mapping[str, str], body: bytes) -> GatewayRequest:
    """What is asked. `headers` have names in small letters. Raises `RefusedError`."""
    given = _pairs(query)
    user, secret = _credentials(given, headers)
    text = _text(body)
    sql = "\n".join(part for part in (given.get("query", ""), text) if part)
    if len(sql) > LONGEST_SQL:
        raise RefusedError(BAD_ARGUMENTS, f"The statement is over {LONGEST_SQL} characters.")
    return GatewayRequest(
        user=user,
        secret=secret,
        sql=sql,
        database=given.get("database") or headers.get("x-clickhouse-database", ""),
        format=headers.get("x-clickhouse-format") or given.get("default_format") or "TabSeparated",
        query_id=given.get("query_id", "")[:LONGEST_NAME],
        protocol=_whole(given.get("client_protocol_version", "")),
        gzip=given.get("enable_http_compression") == "1"
        and "gzip" in headers.get("accept-encoding", ""),
        parameters={
            name.removeprefix("param_"): value
            for name, value in given.items()
            if name.startswith("param_") and _NAME.fullmatch(name)
        },
        settings=_settings(given),
    )


def _pairs(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MOST_PARAMETERS)
    except ValueError as error:
        raise RefusedError(BAD_ARGUMENTS, "The address has too many parameters.") from error
    return dict(pairs)


def _credentials(given: Mapping[str, str], headers: Mapping[str, str]) -> tuple[str, str]:
    """Of the headers, of basic authentication, or of the address: the first that names a user."""
    if user := headers.get("x-clickhouse-user"):
        return user, headers.get("x-clickhouse-key", "")
    kind, _, told = headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        try:
            user, _, secret = b64decode(told, validate=True).decode().partition(":")
        except ValueError:
            return "", ""
        return user, secret
    return given.get("user", ""), given.get("password", "")


def _settings(given: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, value in given.items():
        if _TRANSPORT.fullmatch(name) or name.startswith("param_"):
            continue
        if name in _BOUNDS and _NUMBER.fullmatch(value):
            found[name] = value
        elif _SETTINGS.fullmatch(name):
            found[name] = value[:LONGEST_NAME]
        else:
            raise RefusedError(
                READ_ONLY, f"The setting '{name[:LONGEST_NAME]}' is not yours to change."
            )
    return found


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(BAD_ARGUMENTS, "The statement must be UTF-8.") from error


def _whole(said: str) -> int:
    return int(said) if said.isdecimal() and len(said) < 9 else 0  # noqa: PLR2004


__all__ = ["UNKNOWN_DATABASE", "GatewayRequest", "read"]
