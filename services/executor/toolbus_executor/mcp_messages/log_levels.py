"""Log levels of MCP, from least to most severe."""

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
DEFAULT = LEVELS.index("info")  # what most servers send by default
NO_LEVEL = len(LEVELS)  # above every level: nothing is logged


def rank_of(level: str) -> int:
    """Return the severity of a log level; `NO_LEVEL` for an unknown one."""
    return LEVELS.index(level) if level in LEVELS else NO_LEVEL
