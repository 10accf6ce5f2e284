"""Check that the product and its pages use the words of the field (`vocabulary.toml`)."""

import io
import re
import tokenize
import tomllib
from pathlib import Path

import pytest

from harness.samples.source_facts import ROOT, module, name_of, python_files

WORDS = tomllib.loads((Path(__file__).parent / "vocabulary.toml").read_text())
NAMES = WORDS["both"] | WORDS["names"]
PROSE = WORDS["both"] | WORDS["prose"]
# The bench's fictional company: definitions, tasks and programs whose tokens the bench counts.
# This file: it holds banned words as examples.
DATA = frozenset(
    ROOT / "bench" / "scripted" / f"{each}.py"
    for each in ("catalogue", "changes", "lookups", "nouns", "published")
) | {Path(__file__)}
SUPPORT = (
    *("browser", "chaos", "conformance", "fixture_server", "fuzz", "harness", "matrix", "metrics"),
    *("architecture", "chart", "contract", "docs", "models", "unit", "witness"),
)
CHECKED = (
    *("libs", "services", "cli", "demo", "tools", "bench"),
    *(f"tests/{each}" for each in SUPPORT),
)
CODE = sorted(
    path
    for path in (ROOT / "tests" / "conftest.py", *python_files(*CHECKED))
    if ".venv" not in path.parts and path not in DATA
)
PAGES = sorted(
    path
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("*/**/README.md"),
        *ROOT.glob("*/**/templates/*.html"),
    )
    if not {".venv", "build", "node_modules"} & set(path.parts)
)
# A page whose purpose is to name the old words, and texts that were generated from other sources.
EXEMPT = ("docs/adr/0029", "docs/reference/interoperability.md", "CHANGELOG.md")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_PROSE = re.compile(rf"\b({'|'.join(map(re.escape, PROSE))})\b", re.IGNORECASE)
# A function's summary states what it does; these words begin a riddle or a noun phrase instead.
_NO_VERB = re.compile(
    r"(Who|What|Whether|Whose|How|Where|Which|The|A|An|As|Of|So|That|To|No|One|All|Every|Each|Its)\b"
)


def parts(identifier: str) -> list[str]:
    return [each.lower() for each in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)]


def banned_words_of(source: str) -> list[str]:
    """Return each banned word in names and prose of a module: its line and the replacement."""
    found = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            words = [word for word in parts(token.string) if word in NAMES]
            found += [f"{token.start[0]}: {token.string}: {NAMES[word]}" for word in words]
        elif token.type == tokenize.COMMENT or (
            token.type == tokenize.STRING and " " in token.string
        ):
            found += [f"{token.start[0]}: {each}" for each in banned_in_prose(token.string)]
    return found


def banned_in_prose(text: str) -> list[str]:
    """Return each banned word of a text with its replacement."""
    return [f"{each[0]}: {PROSE[each[0].lower()]}" for each in _PROSE.finditer(text)]


def test_modules_use_the_words_of_the_field() -> None:
    found = [
        f"{name_of(path)}:{each}" for path in CODE for each in banned_words_of(module(path).text)
    ]
    assert found == []


def test_pages_use_the_words_of_the_field() -> None:
    found = [
        f"{name_of(path)}: {each}"
        for path in PAGES
        if not name_of(path).startswith(EXEMPT)
        for each in banned_in_prose(FENCED.sub("", path.read_text()))
    ]
    assert found == []


def test_a_functions_summary_begins_with_a_verb() -> None:
    odd = [
        f"{name_of(path)}:{each.line}: {each.summary}"
        for path in CODE
        for each in module(path).functions
        if not each.is_property and _NO_VERB.match(each.summary)
    ]
    assert odd == []


@pytest.mark.parametrize(
    ("source", "finding"),
    [
        ("told = 1\n", "1: told"),
        ("def until_told(): ...\n", "1: until_told"),
        ("# Whoever asks.\n", "1: Whoever"),
        ('raise ValueError("nobody decides")\n', "1: nobody"),
        ("retold = 1\n", ""),
    ],
)
def test_the_check_finds_a_word_in_names_and_prose(source: str, finding: str) -> None:
    assert [each.startswith(finding) for each in banned_words_of(source)] == [True] * bool(finding)
