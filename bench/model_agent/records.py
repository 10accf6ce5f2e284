"""Records of runs, one JSON line each, so that an interrupted benchmark continues."""

import json
import statistics
from pathlib import Path
from typing import Any

Record = dict[str, Any]
RIGHT, GUESSED, WRONG, NO_FIT = "right", "guessed", "wrong", "does not fit"


def load(path: Path) -> list[Record]:
    """Return the records of a file. A last line that was cut is omitted."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def append(path: Path, record: Record) -> None:
    """Add a record to a file. A last line that was cut is removed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    with path.open("a") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def is_done(records: list[Record], tools: int, mode: str, task: str) -> bool:
    """Return whether a task was run in a mode with this number of tools."""
    return any(
        (each["tools"], each["mode"]) == (tools, mode)
        and (each["task"] == task or each["verdict"] == NO_FIT)
        for each in records
    )


def verdict(*, is_right: bool, called: set[str], useful: frozenset[str]) -> str:
    """Judge an answer: a right one counts only if one of the useful tools was called."""
    if not is_right:
        return WRONG
    return RIGHT if called & useful else GUESSED


def summary(records: list[Record]) -> list[Record]:
    """Return a row for each number of tools and mode, with means for each task."""
    groups: dict[tuple[int, str], list[Record]] = {}
    for each in records:
        groups.setdefault((each["tools"], each["mode"]), []).append(each)
    return [
        {"tools": tools, "mode": mode, **_figures(group)}
        for (tools, mode), group in sorted(groups.items())
    ]


def _figures(group: list[Record]) -> Record:
    fixed = {"prompt_tokens": group[0]["prompt_tokens"]}
    runs = [each for each in group if each["verdict"] != NO_FIT]
    if not runs:
        return {"tasks": 0, **fixed}
    counts = {name: sum(each["verdict"] == name for each in runs) for name in (RIGHT, GUESSED)}
    names = ("input_tokens", "output_tokens", "turns", "seconds")
    means = {name: round(statistics.mean(each[name] for each in runs), 1) for name in names}
    return {"tasks": len(runs), **counts, **means, **fixed}
