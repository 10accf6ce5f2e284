"""Whether a statement only reads, judged on its canonical form, before the engine judges again.

The engine's own read-only mode refuses every write, but embedded it still lets a statement
read files by `file()`, write one by INTO OUTFILE, or evaluate text. Those are refused here.
"""

import re

READING = ("SELECT", "WITH", "SHOW", "DESCRIBE", "EXPLAIN")
# Functions that reach beyond the tables. The engine refuses most table functions itself, but not
# inside DESCRIBE, and some act while their arguments are read: sqlite() leaves a file behind.
FORBIDDEN = re.compile(
    r"(cluster|dictionary|eval|executable|file|filesystem|fuzzquery|input|loop|python)"
    r"|(showcertificate|sleepeachrow|remote|remotesecure|url|s3|gcs|oss|cosn|hdfs|azureblobstorage)"
    r"|(arrow|bigquery|mongodb|mysql|postgresql|prometheus|redis|sqlite|odbc|jdbc|ytsaurus)\w*"
    r"|(deltalake|hudi|iceberg|paimon)\w*|\w+cluster|clusterallreplicas"
    r"|ai(classify|embed|extract|filter|generate|redact|similarity|translate)"
)
# One pass over both kinds of quotes: each may hold the other.
_QUOTED = re.compile(r"'(?:[^'\\]|\\.|'')*'|`((?:[^`\\]|\\.)*)`|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
_CALLED = re.compile(r"(\w+)\s*\(")
_REFUSED = {
    rf"^(?!{'|'.join(READING)})": f"Only a reading statement is answered: {', '.join(READING)}.",
    r"\bINTO OUTFILE\b": "INTO OUTFILE is not allowed; take the rows from the answer.",
    r"\bPARALLEL WITH\b": "Ask one statement at a time, without PARALLEL WITH.",
    r"\bFORMAT \w+( SETTINGS .*)?$": "Leave out FORMAT; the rows come as data.",
    r"^DESCRIBE.*\(": "DESCRIBE takes a table's name.",
}


def refusal(canonical: str) -> str:
    """Why this statement may not run, or nothing. The form is `formatQuerySingleLine`'s."""
    words = named(canonical)
    for pattern, reason in _REFUSED.items():
        if re.search(pattern, words):
            return reason
    for name in _CALLED.findall(words):
        if FORBIDDEN.fullmatch(name.lower()):
            return f"{name}() reaches beyond the audit tables and is not allowed."
    return ""


def named(canonical: str) -> str:
    """The statement with what is quoted left out, but for names that could be a function's."""
    return _QUOTED.sub(_unquoted, canonical)


def _unquoted(match: re.Match[str]) -> str:
    """A quoted name that could be a function's, else something that cannot."""
    name = match[1] or match[2] or ""
    return name if re.fullmatch(r"\w+", name) else "''"
