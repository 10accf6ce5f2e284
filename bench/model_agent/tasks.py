"""Tasks with known answers over real MCP servers: files, git, time and the reference server."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from model_agent.workspace import (
    BRANCH,
    COMMITS,
    NOTES,
    PEOPLE,
    PORT,
    TOTALS,
    WORD,
    Workspace,
)

NUMBER, CLOCK = r"\d+", r"\b\d{1,2}:\d\d\b"
AUTHORS = "|".join(sorted({author for author, _ in COMMITS}))
STATE = "ready for departure"


@dataclass(frozen=True, slots=True)
class Task:
    """A question and its answer.

    `pattern` finds the values in an answer: those that the question does not contain must be
    `values`. `tools` are the tools with which the question can be answered. `changed` says whether
    a requested change was made.
    """

    name: str
    question: str
    pattern: str
    values: frozenset[str]
    tools: frozenset[str]
    changed: Callable[[Workspace], bool] = lambda _: True

    def question_in(self, workspace: Workspace) -> str:
        """Return the question with the paths of the workspace."""
        return self.question.format(dir=workspace.directory)

    def is_right(self, answer: str, workspace: Workspace) -> bool:
        """Return whether an answer is right, and the requested change was made."""
        text = answer.replace(str(workspace.directory), "").replace(",", "")
        found = {each.lower() for each in re.findall(self.pattern, text, re.IGNORECASE)}
        known = {each.lower() for each in re.findall(self.pattern, self.question, re.IGNORECASE)}
        wanted = {each.lower() for each in self.values}
        return found - (known - wanted) == wanted and self.changed(workspace)


def _task(
    name: str,
    question: str,
    pattern: str,
    value: str | int,
    *tools: str,
    changed: Callable[[Workspace], bool] = lambda _: True,
) -> Task:
    return Task(name, question, pattern, frozenset({str(value)}), frozenset(tools), changed)


def _is_written(workspace: Workspace) -> bool:
    file = workspace.written / "state.txt"
    return file.exists() and file.read_text().strip() == STATE


_READ = ("disk__read_text_file", "disk__read_file", "disk__read_multiple_files")
_LIST = ("disk__list_directory", "disk__list_directory_with_sizes", "disk__directory_tree")
TASKS = (
    _task("port", "Which port is set in {dir}/settings.json?", NUMBER, PORT, *_READ),
    _task(
        "convert",
        "At 09:15 in Asia/Tokyo, what time is it in Asia/Kolkata? Answer as HH:MM.",
        CLOCK,
        "05:45",
        "time__convert_time",
    ),
    _task(
        "sum",
        "Add 4718 and 2965 with a tool. What is the sum?",
        NUMBER,
        4718 + 2965,
        "everything__get-sum",
    ),
    _task(
        "author",
        "Who wrote the latest commit of the git repository {dir}/repo? Answer with the name.",
        AUTHORS,
        COMMITS[-1][0],
        *("git__git_log", "git__git_show"),
    ),
    _task(
        "notes",
        "How many files whose names end in .txt are in the directory {dir}/notes?",
        NUMBER,
        len(NOTES),
        *(*_LIST, "disk__search_files"),
    ),
    _task(
        "invoices",
        "What is the sum of the totals in {dir}/invoices/a.json, {dir}/invoices/b.json and "
        "{dir}/invoices/c.json?",
        NUMBER,
        sum(TOTALS.values()),
        *_READ,
    ),
    _task(
        "zone",
        "The file {dir}/zone.txt contains a time zone. What time is it there at 12:00 in UTC? "
        "Answer as HH:MM.",
        CLOCK,
        "17:30",
        *(*_READ, "time__convert_time"),
    ),
    _task(
        "write",
        f"Write the text '{STATE}' to the file {{dir}}/out/state.txt. Answer with: done",
        "done",
        "done",
        "disk__write_file",
        changed=_is_written,
    ),
    _task(
        "word",
        f"Which file in {{dir}}/notes contains the word {WORD}? Answer with the file's name.",
        "|".join(NOTES),
        "engine",
        *_READ,
    ),
    _task(
        "commits",
        "How many commits does the git repository {dir}/repo have?",
        NUMBER,
        len(COMMITS),
        "git__git_log",
    ),
    _task(
        "branch",
        "Which branch does the git repository {dir}/repo have besides main? Answer with the name.",
        r"\bmain\b|\bmaster\b|\bharvest\b",
        BRANCH,
        *("git__git_branch", "git__git_log"),
    ),
    _task(
        "oldest",
        "{dir}/people.csv contains names and years of birth. Who was born first? Answer with the "
        "name.",
        "|".join(PEOPLE),
        min(PEOPLE, key=lambda name: PEOPLE[name]),
        *_READ,
    ),
)
