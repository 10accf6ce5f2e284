"""SQL literals for places where a parameter is not possible, and LIKE patterns (no I/O)."""


def quoted(text: str) -> str:
    """Return a text as an SQL string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def like(pattern: str) -> str:
    """Return the LIKE pattern for a pattern with `*` and `?`."""
    plain = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return plain.replace("*", "%").replace("?", "_")
