"""Check that a canonical statement only reads the tables, before the engine checks it again.

The engine's read-only mode rejects every write. However, the embedded engine still allows a
statement to read files with `file()`, to write a file with INTO OUTFILE, or to evaluate text. This
guard rejects these statements. It checks audit queries and queries of BI readers;
`bi_gateway.statement_check` adds the restrictions of readers that are limited to some customers.
"""

import re

READING = ("SELECT", "WITH", "SHOW", "DESCRIBE", "EXPLAIN")
# Functions that access more than the tables. The engine rejects most table functions itself, but
# not inside DESCRIBE, and some act while the statement is analysed: sqlite() creates a file.
FORBIDDEN = re.compile(
    r"(cluster|dictionary|eval|executable|file|filesystem|fuzzquery|input|loop|python)"
    r"|(showcertificate|sleepeachrow|remote|remotesecure|url|s3|gcs|oss|cosn|hdfs|azureblobstorage)"
    r"|(arrow|bigquery|mongodb|mysql|postgresql|prometheus|redis|sqlite|odbc|jdbc|ytsaurus)\w*"
    r"|(deltalake|hudi|iceberg|paimon)\w*|\w+cluster|clusterallreplicas"
    r"|ai(classify|embed|extract|filter|generate|redact|similarity|translate)"
)
# One pass over both kinds of quotes: each may contain the other.
_QUOTED = re.compile(r"'(?:[^'\\]|\\.|'')*'|`((?:[^`\\]|\\.)*)`|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
_CALLED = re.compile(r"(\w+)\s*\(")
_REJECTED = {
    rf"^(?!{'|'.join(READING)})": f"Only a read-only statement is allowed: {', '.join(READING)}.",
    r"\bINTO OUTFILE\b": "INTO OUTFILE is not allowed; use the rows of the response.",
    r"\bPARALLEL WITH\b": "Send one statement at a time, without PARALLEL WITH.",
    r"\bFORMAT \w+( SETTINGS .*)?$": "Remove FORMAT; the rows are returned as data.",
    r"^DESCRIBE.*\(": "DESCRIBE accepts only the name of a table.",
}


def rejection(canonical: str) -> str:
    """Return the reason to reject this statement; empty if it is allowed.

    `canonical` is the output of ClickHouse's `formatQuerySingleLine`.
    """
    words = without_strings(canonical)
    for pattern, reason in _REJECTED.items():
        if re.search(pattern, words):
            return reason
    return forbidden_function(words, FORBIDDEN)


def forbidden_function(words: str, forbidden: re.Pattern[str]) -> str:
    """Return the reason to reject a statement that calls a forbidden function, else an empty text.

    `words` is a statement as `without_strings` returns it. `forbidden` matches names in lower case.
    """
    for name in _CALLED.findall(words):
        if forbidden.fullmatch(name.lower()):
            return (
                f"{name}() is not allowed, because it reads more than the audit tables; remove it."
            )
    return ""


def without_strings(canonical: str) -> str:
    """Return the statement with empty literals for quoted texts that cannot name a function."""
    return _QUOTED.sub(_unquoted, canonical)


def _unquoted(match: re.Match[str]) -> str:
    """Return the quoted text if it can name a function, else an empty string literal."""
    name = match[1] or match[2] or ""
    return name if re.fullmatch(r"\w+", name) else "''"
