"""Check that a reader may run a canonical statement.

Row policies of the engine limit a reader to the rows of its customers. They cover neither system
tables, which show queries of other readers, nor functions that access more than the tables. Both
are rejected by name. These checks are made in addition to `clickhouse.sql_guard` (no I/O).
"""

import re

from toolbus_audit.bi_gateway.errors import ACCESS_DENIED, BAD_ARGUMENTS, READ_ONLY, GatewayError
from toolbus_audit.clickhouse.sql_guard import forbidden_function, rejection, without_strings


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FORMATS = _words(
    "Native RowBinary RowBinaryWithNames RowBinaryWithNamesAndTypes TabSeparated TSV TSVRaw"
    " TabSeparatedRaw TabSeparatedWithNames TSVWithNames TabSeparatedWithNamesAndTypes"
    " TSVWithNamesAndTypes CSV CSVWithNames CSVWithNamesAndTypes JSON JSONStrings JSONCompact"
    " JSONCompactStrings JSONEachRow JSONStringsEachRow JSONCompactEachRow JSONColumns"
    " JSONCompactEachRowWithNames JSONCompactEachRowWithNamesAndTypes JSONColumnsWithMetadata"
    " Pretty PrettyCompact PrettyCompactMonoBlock PrettyNoEscapes PrettySpace Vertical Values XML"
    " Markdown Parquet Arrow ArrowStream"
)
_FORMAT = re.compile(r"\s+FORMAT\s+(\w+)$")
_SYSTEM_TABLE = re.compile(r"\b(system|information_schema)\.(\w+)", re.IGNORECASE)
# System tables that describe the engine and the schema. They show nothing of other readers.
_VISIBLE_TABLES = _words(
    "one numbers numbers_mt zeros databases tables columns settings functions formats"
    " data_type_families table_engines table_functions keywords collations contributors licenses"
    " time_zones build_options schemata views key_column_usage"
)

_FORBIDDEN = re.compile(
    r"merge|mergetree\w*|dict\w+|joinget\w*|catboostevaluate|getmacro|getserversetting|logtrace"
    r"|getclienthttpheader|addressto\w+|demangle|timeseries\w+selector|view|viewifpermitted"
)
_SHOW = re.compile(
    r"SHOW (?:FULL )?(?:TEMPORARY )?(?:TABLES|DATABASES|COLUMNS|FUNCTIONS|SETTINGS|CREATE)\b"
)


def split(canonical: str, default: str) -> tuple[str, str]:
    """Return the statement without its FORMAT, and the format. Raises `GatewayError`."""
    match = _FORMAT.search(canonical)
    form = match[1] if match else default
    if form not in FORMATS:
        raise GatewayError(
            BAD_ARGUMENTS,
            f"The format '{form[:40]}' is not supported; use Native, JSON or CSV.",
        )
    return (canonical[: match.start()] if match else canonical), form


def check(statement: str) -> None:
    """Raise `GatewayError` unless a reader may run this statement."""
    words = without_strings(statement)
    if reason := rejection(statement) or _reader_rejection(words):
        raise GatewayError(ACCESS_DENIED, reason)
    if re.search(r"\bSETTINGS\b", words):
        raise GatewayError(READ_ONLY, "Remove SETTINGS; the gateway sets the limits of readers.")


def _reader_rejection(words: str) -> str:
    for database, table in _SYSTEM_TABLE.findall(words):
        if table.lower() not in _VISIBLE_TABLES:
            return f"{database}.{table} is not visible to readers; remove it from the statement."
    if reason := forbidden_function(words, _FORBIDDEN):
        return reason
    if words.startswith("SHOW") and not _SHOW.match(words):
        return (
            "SHOW is allowed only for TABLES, DATABASES, COLUMNS, FUNCTIONS, SETTINGS and CREATE."
        )
    if words.startswith("EXPLAIN"):
        return "EXPLAIN is not allowed for readers; run the statement itself."
    if re.search(r"\{\w+:\s*Identifier\}", words):
        return "Write table and column names into the statement; parameters may only be values."
    return ""
