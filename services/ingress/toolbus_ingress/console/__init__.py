"""The console: HTML pages for people, each a client of the REST APIs with the person's rights."""

PREFIX = "/console"
LIVE = f"{PREFIX}/live/events"


def serves(path: str) -> bool:
    """Return whether a path belongs to the console."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")
