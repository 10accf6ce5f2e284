"""Pages are templates, escaped by default and without scripts; no module builds HTML."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.samples.source_facts import ROOT, module, name_of, python_files

PARTS = [ROOT / part for part in ("libs", "services", "cli", "demo")]
MODULES = python_files("libs", "services", "cli", "demo")
TEMPLATES = sorted(
    path for part in PARTS for path in part.glob("**/templates/*") if path.suffix != ".pyc"
)
CONSOLE = ROOT / "services/ingress/toolbus_ingress/console"
EVERY_PAGE = [path for path in TEMPLATES if path.suffix == ".html"]
PAGES = [path for path in EVERY_PAGE if not path.is_relative_to(CONSOLE)]
CONSOLE_PAGES = [path for path in EVERY_PAGE if path.is_relative_to(CONSOLE)]
SERVICES = sorted(path.name for path in (ROOT / "services").iterdir() if path.is_dir())
RENDERER = ROOT / "libs/common/toolbus_common/web/html.py"
NAMED = re.compile(r'"(toolbus_[a-z_.]+/[a-z_]+\.(?:html|css))"')
FORBIDDEN = {
    "no value is exempt from escaping": r"\|\s*(safe|tojson|xmlattr|urlize)\b|autoescape|__html__",
    "no script": r"<script|javascript:|\bon[a-z]+\s*=",
    "no style but the one whose hash the policy has": r"\bstyle\s*=|<style(?!>\{% block style %\})",
    "nothing from elsewhere": r"https?:|\bsrc\s*=|<(link|img|iframe|object|embed|base)\b",
    "no address but the provider's is a value": r"(href|action|formaction)=\"[^\"]*\{\{",
}
OF_THE_CONSOLE = {
    "no value is exempt from escaping": FORBIDDEN["no value is exempt from escaping"],
    "no script but its files, with the nonce of the response": (
        r"<script(?! src=\"/console/static/[a-z.]+\" nonce=\"\{\{ nonce \}\}\" defer></script>)"
        r"|javascript:|\bon[a-z]+\s*="
    ),
    "no style in a page": r"\bstyle\s*=|<style",
    "nothing from elsewhere": r"https?:|\bsrc=\"(?!/console/static/)|<(iframe|object|embed|base)\b",
    "no value begins an address": (
        r"(href|action|formaction|hx-[a-z]+)=\"\{\{(?! (href|action) \}\})"
    ),
}
THE_PROVIDERS = ("provider.html", '<p><a href="{{ url }}">')
ELEMENT = re.compile(
    r"</?(a|article|body|button|div|dl|dt|dd|form|h[1-6]|head|html|input|label|li|main|meta|ol|p"
    r"|pre|rect|section|span|strong|style|svg|table|tbody|td|th|tr|ul)(\s+[a-z-]+=|/?>)"
)


def as_named(path: Path) -> str:
    """Return the name that `render` and other templates use."""
    package = next(path.relative_to(part) for part in PARTS if path.is_relative_to(part))
    *folders, _, file = package.parts
    first = next(at for at, folder in enumerate(folders) if folder.startswith("toolbus_"))
    return f"{'.'.join(folders[first:])}/{file}"


def test_every_template_is_used_and_every_named_one_exists() -> None:
    named = {found for path in (*MODULES, *TEMPLATES) for found in NAMED.findall(path.read_text())}
    modules = [path for path in MODULES if path.is_relative_to(CONSOLE)]
    named |= {
        f"toolbus_ingress.console/{found}"
        for path in modules
        for found in re.findall(r'"([a-z_]+\.html)"', path.read_text())
    }
    assert named == set(map(as_named, TEMPLATES))


@pytest.mark.parametrize("reason", FORBIDDEN)
@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_a_template_has_nothing_that_the_pages_policy_forbids(path: Path, reason: str) -> None:
    text = path.read_text()
    if path.name == THE_PROVIDERS[0]:
        text = text.replace(THE_PROVIDERS[1], "")
    found = re.search(FORBIDDEN[reason], text, re.IGNORECASE)
    assert found is None, (reason, found)


@pytest.mark.parametrize("reason", OF_THE_CONSOLE)
@pytest.mark.parametrize("path", CONSOLE_PAGES, ids=name_of)
def test_a_page_of_the_console_has_nothing_that_its_policy_forbids(path: Path, reason: str) -> None:
    found = re.search(OF_THE_CONSOLE[reason], path.read_text(), re.IGNORECASE)
    assert found is None, (reason, found)


@pytest.mark.parametrize("path", EVERY_PAGE, ids=name_of)
def test_every_value_of_an_attribute_is_quoted(path: Path) -> None:
    bare = re.sub(r'"[^"]*"', '""', path.read_text())
    assert re.findall(r'\s[a-z-]+=(?!"")\S*', bare) == []


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_a_template_extends_the_one_layout_or_holds_macros(path: Path) -> None:
    text = path.read_text()
    layout = '{% extends "toolbus_common.web/base.html" %}'
    assert text.startswith((layout, "{% macro ")) or path.name == "base.html"
    assert ("<html" in text) == (path.name == "base.html")


@pytest.mark.parametrize("path", EVERY_PAGE, ids=name_of)
def test_every_field_of_a_form_has_a_label(path: Path) -> None:
    fields = [
        each
        for each in re.findall(r"<(?:input|select|textarea)\b[^>]*", path.read_text())
        if "hidden" not in each
    ]
    ids = [re.search(r'\bid="([^"]+)"', each) for each in fields]
    labels = re.findall(r'<label for="([^"]+)">', path.read_text())
    assert [found[1] if found else "" for found in ids] == labels


def test_no_module_builds_html() -> None:
    building = [
        f"{name_of(path)}:{line}"
        for path in MODULES
        for line, value in module(path).strings
        if ELEMENT.search(value)
    ]
    assert building == []


def test_no_module_marks_text_as_escaped() -> None:
    escaping = re.compile(r"\bMarkup\b|\bmarkupsafe\b|^(from html import|import html)\b|autoescape")
    marking = [name_of(path) for path in MODULES if escaping.search(module(path).text)]
    assert marking == [name_of(RENDERER)]


def test_every_value_is_escaped_and_a_missing_one_is_an_error() -> None:
    text = RENDERER.read_text()
    assert "autoescape=True" in text
    assert "undefined=StrictUndefined" in text


def test_no_process_imports_jinja_before_it_renders_a_page() -> None:
    mains = [f"toolbus_{service}.main" for service in SERVICES]
    imports = f"import sys, toolbus_cli.main, toolbus_cli.app, {', '.join(mains)}"
    code = f"{imports}\nprint(sorted({{'jinja2', 'markupsafe'}} & set(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True
    )
    assert ended.stdout.strip() == "[]"
