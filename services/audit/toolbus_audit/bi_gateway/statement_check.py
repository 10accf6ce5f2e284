"""Whether a reader may ask this, judged on its canonical form; the engine sees to whose rows show.

What the engine does not keep apart by customer is refused by name: its own tables, which tell what
others asked, and functions that reach beyond the tables. Pure.
"""

import re

from toolbus_audit.bi_gateway.errors import ACCESS_DENIED, BAD_ARGUMENTS, READ_ONLY, RefusedError
from toolbus_audit.clickhouse.sql_guard import named, refusal


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
_OWN = re.compile(r"\b(system|information_schema)\.(\w+)", re.IGNORECASE)
# What clients look at to know the engine and the tables; nothing of it tells of other readers.
_SHOWN = _words(
    "one numbers numbers_mt zeros databases tables columns settings functions formats"
    " data_type_families table_engines table_functions keywords collations contributors licenses"
    " time_zones build_options schemata views key_column_usage"
)
_CALLED = re.compile(r"(\w+)\s*\(")
_BEYOND = re.compile(
    r"merge|mergetree\w*|dict\w+|joinget\w*|catboostevaluate|getmacro|getserversetting|logtrace"
    r"|getclienthttpheader|addressto\w+|demangle|timeseries\w+selector|view|viewifpermitted"
)
_SHOW = re.compile(
    r"SHOW (?:FULL )?(?:TEMPORARY )?(?:TABLES|DATABASES|COLUMNS|FUNCTIONS|SETTINGS|CREATE)\b"
)


def split(canonical: str, usual: str) -> tuple[str, str]:
    """The statement without its FORMAT, and the format. Raises `RefusedError`."""
    match = _FORMAT.search(canonical)
    form = match[1] if match else usual
    if form not in FORMATS:
        raise RefusedError(
            BAD_ARGUMENTS,
            f"The format '{form[:40]}' is not written here; take Native, JSON or CSV.",
        )
    return (canonical[: match.start()] if match else canonical), form


def check(statement: str) -> None:
    """Raise `RefusedError` unless a reader may ask this."""
    words = named(statement)
    if reason := refusal(statement) or _refused(words):
        raise RefusedError(ACCESS_DENIED, reason)
    if re.search(r"\bSETTINGS\b", words):
        raise RefusedError(READ_ONLY, "Leave out SETTINGS; bounds are set for every reader.")


def _refused(words: str) -> str:
    for database, table in _OWN.findall(words):
        if table.lower() not in _SHOWN:
            return f"{database}.{table} is not shown to readers."
    for name in _CALLED.findall(words):
        if _BEYOND.fullmatch(name.lower()):
            return f"{name}() reaches beyond the audit tables and is not allowed."
    if words.startswith("SHOW") and not _SHOW.match(words):
        return (
            "Of SHOW, only TABLES, DATABASES, COLUMNS, FUNCTIONS, SETTINGS and CREATE are answered."
        )
    if words.startswith("EXPLAIN"):
        return "EXPLAIN is for operators."
    if re.search(r"\{\w+:\s*Identifier\}", words):
        return "Name tables and columns in the statement; only values may be parameters."
    return ""
