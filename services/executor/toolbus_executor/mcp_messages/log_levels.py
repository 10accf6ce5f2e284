"""Log levels of MCP, from least to most severe."""

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
DEFAULT = LEVELS.index("info")  # the default level of most servers
NO_LEVEL = len(LEVELS)  # above every level: nothing is logged


def rank_of(level: str) -> int:
    """Return the severity of a log level; `NO_LEVEL` if the level is unknown."""
    return LEVELS.index(level) if level in LEVELS else NO_LEVEL
