"""Check that the files, subjects and events named in explanations, decisions and READMEs exist."""

import re
from pathlib import Path

import pytest

from toolbus_common.contracts import Event
from toolbus_common.nats import topology
from toolbus_common.nats.permissions import rights

ROOT = Path(__file__).resolve().parents[2]
EXPLANATIONS = sorted((ROOT / "docs" / "explanation").glob("*.md"))
DECISIONS = sorted((ROOT / "docs" / "adr").glob("0*.md"))
CURRENT = [page for page in DECISIONS if "standard-terms" not in page.name]  # names old terms
READMES = sorted((ROOT / "services").glob("*/README.md"))
PACKAGES = {
    package.name: package
    for folder in (ROOT / "libs" / "common", ROOT / "cli", *(ROOT / "services").iterdir())
    for package in folder.glob("toolbus_*")
}
# Log events and events of webhooks look like events of the stream.
SOURCE = "\n".join(
    path.read_text() for package in PACKAGES.values() for path in package.rglob("*.py")
)
CALL = ROOT / "docs" / "explanation" / "life-of-a-call.md"
ARCHITECTURE = ROOT / "docs" / "explanation" / "architecture.md"
SECURITY = ROOT / "docs" / "explanation" / "security-model.md"


def named_paths(text: str) -> list[str]:
    """Return the Python files and folders of the project that a text names in backticks."""
    return re.findall(r"`((?:toolbus_\w+|tests)/[\w/]*(?:\.\w+|/))`", text)


def located(path: str) -> Path:
    """Return where a path named in a text is: below its package, or below the root."""
    package, _, rest = path.partition("/")
    return PACKAGES[package] / rest if package in PACKAGES else ROOT / path


@pytest.mark.parametrize("page", [*EXPLANATIONS, *DECISIONS], ids=lambda path: path.name)
def test_every_path_a_page_names_exists(page: Path) -> None:
    missing = [each for each in named_paths(page.read_text()) if not located(each).exists()]
    assert missing == []


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_every_module_a_service_readme_names_exists(readme: Path) -> None:
    (package,) = readme.parent.glob("toolbus_*")
    named = re.findall(r"`([\w/]+(?:\.py|/))`", readme.read_text())
    own = [each for each in named if not each.startswith(("toolbus_", "tests/"))]
    assert [each for each in own if not (package / each).exists()] == []
    others = named_paths(readme.read_text())
    assert [each for each in others if not located(each).exists()] == []


def test_each_step_of_a_call_names_its_modules() -> None:
    rows = re.findall(r"^\| (?!step|-)(.+) \| (.+) \|$", CALL.read_text(), re.MULTILINE)
    assert len(rows) > 30
    assert [step for step, modules in rows if not named_paths(modules)] == []


def test_each_threat_names_its_code_and_its_test() -> None:
    threats = SECURITY.read_text().split("## Threats")[1].split("## Not defended")[0]
    rows = re.findall(r"^\| (?!threat|-)(.+) \| (.+) \| (.+) \| (.+) \|$", threats, re.MULTILINE)
    assert len(rows) > 40
    for threat, _, code, test in rows:
        assert named_paths(code), threat
        assert all(each.startswith("tests/") for each in named_paths(test)), threat
        assert named_paths(test), threat


def test_the_table_of_subjects_is_that_of_the_permissions() -> None:
    table = re.findall(r"^\| (`tb\.[^|]+) \|", ARCHITECTURE.read_text(), re.MULTILINE)
    named = {kind for row in table for kind in re.findall(r"`tb\.(\w+)\.", row)}
    permitted = {
        subject.split(".")[1]
        for user in rights().values()
        for subject in (*user.publish, *user.subscribe)
        if subject.startswith("tb.")
    }
    assert named == permitted


def test_the_table_of_state_names_every_bucket_and_no_other() -> None:
    named = set(re.findall(r"`(tb_\w+)`", ARCHITECTURE.read_text()))
    assert named == {bucket.bucket for bucket in topology.BUCKETS} | set(topology.OBJECTS)


@pytest.mark.parametrize(
    "page", [*EXPLANATIONS, *CURRENT, *READMES], ids=lambda path: "/".join(path.parts[-2:])
)
def test_every_event_a_page_names_is_published(page: Path) -> None:
    events = {event.NAME for event in published(Event)}
    nouns = "|".join({name.split(".")[0] for name in events} - {"config", "server"})
    named = re.findall(rf"`((?:{nouns})\.[a-z_]+)`", page.read_text())
    assert [name for name in named if name not in events and f'"{name}"' not in SOURCE] == []


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_a_services_readme_names_every_event_that_the_service_may_publish(readme: Path) -> None:
    allowed = rights()[readme.parent.name].publish
    events = [
        subject[len("tb.event.") : -len(".*")] for subject in allowed if "tb.event." in subject
    ]
    named = re.findall(r"`(\w+\.[\w*]+)`", readme.read_text())
    assert [event for event in events if not {event, f"{event.split('.')[0]}.*"} & set(named)] == []


def published(root: type[Event]) -> list[type[Event]]:
    """Return the event classes below a class that have a name of their own."""
    below = [each for child in root.__subclasses__() for each in [child, *published(child)]]
    return [each for each in below if getattr(each, "NAME", "")]
