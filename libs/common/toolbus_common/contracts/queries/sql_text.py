"""Texts as SQL has them: literals, where there can be no parameter, and patterns. Pure."""


def quoted(text: str) -> str:
    """A text as a literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def like(pattern: str) -> str:
    """A pattern with `*` and `?` as LIKE has it."""
    plain = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return plain.replace("*", "%").replace("?", "_")
