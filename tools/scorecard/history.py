"""Check whether a stored figure still applies to the current code."""

import subprocess
from datetime import UTC, datetime, timedelta

from scorecard.lines import ROOT
from scorecard.results import Card, Result

OLD = timedelta(days=30)


def commit_of(result: Result) -> str:
    """Return the commit that a result names, else the commit that stored its file."""
    return result.commit or _git("log", "-1", "--format=%h", "--", str(result.path)) or "unknown"


def stale(card: Card) -> str:
    """Return why the figures of a line are stale, or an empty text."""
    return "; ".join(dict.fromkeys(filter(None, (_stale(card, each) for each in card.results))))


def _stale(card: Card, result: Result) -> str:
    commit = commit_of(result).removesuffix("-dirty")
    if _git("merge-base", commit, "HEAD") is None:
        return f"commit {commit} is not in this history"
    changes = _git("rev-list", "--count", f"{commit}..HEAD", "--", *card.line.code)
    if changes != "0":
        return f"{changes} commits later"
    age = datetime.now(UTC) - result.at
    return f"{age.days} days old" if age > OLD else ""


def _git(*arguments: str) -> str | None:
    """Return what git prints, or None if it fails or is not installed."""
    try:
        done = subprocess.run(  # noqa: S603 - arguments of this module, no shell
            ["git", *arguments],  # noqa: S607 - the caller's own git
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
