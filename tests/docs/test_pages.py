"""The pages of the documentation: in the navigation, and true about files and symbols."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.clients.admin_operations import openapi_document
from harness.samples import page_samples
from harness.samples.page_samples import ROOT
from toolbus_ingress import oauth_proxy
from toolbus_ingress.auth import protected_resource

DOCS = ROOT / "docs"
READMES = [
    path for part in ("services", "cli", "deploy", "tests") for path in ROOT.glob(f"{part}/**/*.md")
]
GUIDES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *READMES])
WHERE = DOCS / "explanation" / "where-things-are.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
WALKS = ("upstream kind", "event and its column", "CLI command", "rule attribute", "provider")
# `path` or `path` (`symbol`, `symbol`)
_NAMED = re.compile(r"`((?!build/)(?:[\w.-]+/)+[\w.-]*|[\w-]+\.md)`(?: \(((?:`\w+`(?:,\s+)?)+)\))?")


class _Loader(yaml.SafeLoader):
    """A loader of mkdocs.yml, whose tags name Python functions."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
_Loader.add_constructor("!ENV", lambda *_: None)


def navigation() -> list[str]:
    document = yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)
    return list(_pages(document["nav"]))


def _pages(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    for each in entry.values() if isinstance(entry, dict) else entry:
        if not isinstance(entry, str):
            yield from _pages(each)


def named(page: Path) -> list[tuple[str, list[str]]]:
    """Return the paths that a page names, each with the symbols in brackets behind it."""
    found = _NAMED.findall(page.read_text().replace("\n   ", " "))
    return [(path, re.findall(r"\w+", symbols)) for path, symbols in found]


def defined(path: Path) -> set[str]:
    """Return the names that a module defines: classes, functions, methods and constants."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {each.id for each in targets if isinstance(each, ast.Name)}
    return found


def test_every_page_is_in_the_navigation_once() -> None:
    shown = navigation()
    assert sorted(shown) == sorted(set(shown))
    assert sorted(shown) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", [WHERE, CONTRIBUTING], ids=lambda page: page.name)
def test_the_paths_and_symbols_on_a_page_exist(page: Path) -> None:
    found = named(page)
    assert len(found) > 20
    assert [path for path, _ in found if not (ROOT / path).exists()] == []
    missing = [
        f"{path}: {symbol}"
        for path, symbols in found
        for symbol in symbols
        if symbol not in defined(ROOT / path)
    ]
    assert missing == []


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_names_its_files_in_order(walk: str) -> None:
    wanted = rf"^### Add an? {walk}.*?(?=^##|\Z)"
    section = re.search(wanted, CONTRIBUTING.read_text(), re.DOTALL | re.MULTILINE)
    assert section, walk
    assert len(re.findall(r"^\d+\. `", section[0], re.MULTILINE)) >= 3


@pytest.mark.parametrize(
    "question",
    [
        "circuit breaker", "reservation is made and settled", "written before a call runs",
        "JSON-RPC error code", "may publish a subject", "SQL builds a dashboard", "upstream kind",
        "CLI command", "an event", "rule attribute",
    ],
)  # fmt: skip
def test_the_first_questions_about_the_code_are_answered_with_paths(question: str) -> None:
    sections = re.split(r"^(?=## |\| )", WHERE.read_text(), flags=re.MULTILINE)
    heads = [
        (each.split("|")[1] if each[0] == "|" else each.splitlines()[0], each) for each in sections
    ]
    answers = [each for head, each in heads if question in head]
    assert answers
    assert all(any((ROOT / path).exists() for path, _ in _NAMED.findall(each)) for each in answers)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_link_has_a_target(guide: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", guide.read_text())
    links = re.findall(r"\]\((?!https?:|mailto:)([^)#\s]+)", text)
    assert [link for link in links if not (guide.parent / link).exists()] == []


def test_the_paths_of_ingress_are_in_the_reference() -> None:
    page = (DOCS / "reference" / "http-endpoints.md").read_text()
    described = (
        each.replace("{approval}", "<id>").replace("{name}", "<name>")
        for each in openapi_document()["paths"]
    )
    served = {each for each in described if not each.startswith("/api/v1/")}
    served |= {*oauth_proxy.DOCUMENTS, oauth_proxy.PREFIX}
    served |= {
        protected_resource.WELL_KNOWN,
        "/mcp/",
        "/sse/",
        "/api/v1/",
        "/approvals/",
        "/healthz",
    }
    assert [path for path in sorted(served) if f"`{path}" not in page] == []


def test_every_marker_of_samples_is_described() -> None:
    assert [each for each in page_samples.DIRECTIVES if each not in CONTRIBUTING.read_text()] == []


def test_the_readme_has_fewer_than_150_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
