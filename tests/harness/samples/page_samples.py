"""Samples in documentation pages, and the markers that define the check of each sample.

A marker is an HTML comment on the line before a fence: `<!-- sample: run; prints Oslo -->`.
CONTRIBUTING.md lists the markers.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
LANGUAGES = {"sh": "sh", "bash": "sh", "yaml": "yaml", "yml": "yaml", "python": "python"}
_SAMPLE = re.compile(
    r"^(?:(?P<before>[ \t]*<!-- sample: (?P<marker>.+?) -->)[ \t]*\n\s*)?"
    r"(?P<indent>[ \t]*)```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
_BEFORE_A_COMMAND = {"!", "$", "do", "else", "env", "exec", "if", "nohup", "then", "until", "while"}
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Sample:
    """A fence of a page. `line` is its line number."""

    page: str
    line: int
    language: str
    text: str
    marker: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def directives(self) -> dict[str, str]:
        """The directives of the marker with their values.

        `with` has the rest of the marker as value.
        """
        rest, _, completion = re.sub(r"(^|;)\s*with\s", "\0", self.marker, count=1).partition("\0")
        found = {}
        for each in filter(None, (part.strip() for part in rest.split(";"))):
            name = next((name for name in DIRECTIVES if re.match(rf"{name}\b", each)), each)
            found[name] = each[len(name) :].lstrip(": ")
        return {**found, "with": completion.strip()} if completion else found

    @property
    def runs(self) -> bool:
        """Whether the check needs a gateway."""
        return not {"run", "run program", "apply"}.isdisjoint(self.directives)

    @property
    def configuration(self) -> dict[str, Any]:
        """The complete configuration for a YAML sample that is one section."""
        document = yaml.safe_load(self.text)
        for name in reversed(self.directives.get("in", "").split(".")):
            document = {name: document} if name else document
        return merged(yaml.safe_load(self.directives.get("with", "{}")), document)


DIRECTIVES = (
    "not run", "run program", "run", "program", "apply", "in", "until prints", "prints", "may fail",
)  # fmt: skip
_ALLOWED = {
    "yaml": {"not run", "apply", "in", "with"},
    "sh": {"not run", "run", "prints", "until prints", "may fail"},
    "python": {"not run", "run", "prints", "until prints", "may fail", "program", "run program"},
}


def pages() -> list[Path]:
    """Return the pages whose samples are checked: all pages except the decision records."""
    found = [path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "adr"]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(found)]


def samples(path: Path) -> list[Sample]:
    """Return the samples of a page in their order."""
    text = path.read_text()
    found = []
    for match in _SAMPLE.finditer(text):
        language = LANGUAGES.get(match["language"])
        if language is None:
            continue
        indent = match["indent"]
        lines = (line.removeprefix(indent) for line in match["text"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start("language")) + 1
        page = path.relative_to(ROOT).as_posix()
        found.append(Sample(page, line, language, "".join(lines), match["marker"] or ""))
    return found


def every_sample() -> list[Sample]:
    """Return the samples of all pages."""
    return [sample for path in pages() for sample in samples(path)]


def faults(sample: Sample) -> Iterator[str]:
    """Yield the errors of a sample's marker."""
    if not sample.marker and sample.language != "yaml":
        yield "has no marker: <!-- sample: run --> or <!-- sample: not run: REASON -->"
    directives = sample.directives
    unknown = set(directives) - _ALLOWED[sample.language]
    if unknown:
        yield f"has a marker that {sample.language} samples do not have: {', '.join(unknown)}"
    if "not run" in directives and len(directives["not run"]) < len("a reason"):
        yield "is not run and gives no reason"
    if "not run" in directives and len(directives) > 1:
        yield "is not run; its marker says more than that"


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return two merged documents: mappings are merged, other second values replace the first."""
    found = deepcopy(dict(base))
    for name, value in over.items():
        both = isinstance(value, Mapping) and isinstance(found.get(name), Mapping)
        found[name] = merged(found[name], value) if both else deepcopy(value)
    return found


def commands(text: str, program: str = "toolbus") -> Iterator[list[str]]:
    """Yield the words after `program` in each command line of a shell sample."""
    for line in _whole_lines(text):
        words: list[str] = []
        for token in [*_tokens(line), ";"]:
            if set(token) <= set("();<>|&\n") and token:
                yield from _command(words, program)
                words = []
            else:
                words.append(token)


def _command(words: list[str], program: str) -> Iterator[list[str]]:
    for number, word in enumerate(words):
        if word.rpartition("/")[2] == program:
            yield words[number + 1 :]
            return
        if not (word in _BEFORE_A_COMMAND or _ASSIGNMENT.fullmatch(word)):
            return


def _whole_lines(text: str) -> Iterator[str]:
    """Yield logical lines: a quotation or a backslash continues a line."""
    started = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        started += line
        try:
            _tokens(started)
        except ValueError:
            started += "\n"
            continue
        yield started
        started = ""


def _tokens(line: str) -> list[str]:
    """Split a line in the same way as a shell, without comments. Raises `ValueError`."""
    return list(shlex.shlex(line, posix=True, punctuation_chars=True))
