"""Write SQL literals where a parameter is not possible, and LIKE patterns. Pure."""


def quoted(text: str) -> str:
    """Return a text as an SQL literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def like(pattern: str) -> str:
    """Return a pattern with `*` and `?` as a LIKE pattern."""
    plain = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return plain.replace("*", "%").replace("?", "_")
