"""The levels of logging, least grave first."""

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
DEFAULT = LEVELS.index("info")  # what most servers send that nobody told a level
NO_LEVEL = len(LEVELS)  # graver than any: nothing is told


def rank_of(level: str) -> int:
    """How grave a level is; `NO_LEVEL` for one nobody knows."""
    return LEVELS.index(level) if level in LEVELS else NO_LEVEL
