"""What the guides say is held against the code they speak of."""

import re
from pathlib import Path

import pytest
import yaml

from toolbus_common.config import (
    Access,
    ConfigModel,
    Customer,
    Export,
    Group,
    Issuer,
    Key,
    Level,
    Period,
    Reader,
    Rule,
    Server,
    Sink,
    Team,
    User,
    Webhook,
)
from toolbus_common.config_store.loading.loader import load
from toolbus_common.errors import ToolbusError
from toolbus_common.rules.schema import METHODS
from toolbus_ingress.http.jsonrpc import failure
from toolbus_ingress.settings import Settings as IngressSettings

ROOT = Path(__file__).resolve().parents[2]
GUIDES = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md"))
ERRORS = (ROOT / "docs" / "errors.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
EXPORT = (ROOT / "docs" / "export.md").read_text()
RULES = (ROOT / "docs" / "rules.md").read_text()
README = (ROOT / "README.md").read_text()
UNTOLD = {"internal", "refused", "unavailable", "upstream_failed"}  # roots of the tree


def classes(root: type[ToolbusError]) -> list[type[ToolbusError]]:
    """The tree below a class, and itself."""
    found = [root, *(cls for child in root.__subclasses__() for cls in classes(child))]
    return [cls for cls in found if cls.__module__ == ToolbusError.__module__]


@pytest.mark.parametrize("cls", classes(ToolbusError), ids=lambda cls: cls.__name__)
def test_an_error_is_told_with_the_codes_it_has(cls: type[ToolbusError]) -> None:
    if cls.code in UNTOLD:
        return
    row = re.search(rf"^\| `{cls.code}` \| (-\d+) \| (\d+) \|", ERRORS, re.MULTILINE)
    assert row, f"docs/errors.md does not tell {cls.code}"
    answer = failure(cls("A sentence."))
    assert answer.status == int(row[2])
    assert f'"code":{row[1]}'.encode() in answer.body


@pytest.mark.parametrize(
    ("section", "model"),
    [
        ("servers", Server),
        ("keys", Key),
        ("teams", Team),
        ("users", User),
        ("customers", Customer),
        ("groups", Group),
        ("rules", Rule),
        ("webhooks", Webhook),
        ("exports", Export),
        ("sinks", Sink),
        ("readers", Reader),
        ("issuers", Issuer),
        ("access", Access),
    ],
)
def test_every_field_of_the_configuration_is_told(section: str, model: type[ConfigModel]) -> None:
    row = re.search(rf"^\| `{section}` \|.*$", CONFIGURATION, re.MULTILINE)
    assert row
    kept_by_the_command = {"secret_hash", "revoked"}
    told_once = set(Level.model_fields) if issubclass(model, Level) else set()
    for field in set(model.model_fields) - kept_by_the_command - told_once:
        assert f"`{field}" in row[0] or f"{field}" in row[0], field


@pytest.mark.parametrize("field", Level.model_fields)
def test_every_field_of_every_level_is_told(field: str) -> None:
    assert re.search(rf"^\| `{field}` \|.*$", CONFIGURATION, re.MULTILINE)


def test_every_period_is_told() -> None:
    for period in Period:
        assert period.value in CONFIGURATION


def test_the_readmes_configuration_is_valid_yaml_of_known_sections() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert set(yaml.safe_load(example)) == {"servers", "customers", "teams", "keys", "prices"}


@pytest.mark.parametrize(
    "example", re.findall(r"```yaml\n(.*?)```", RULES, re.DOTALL), ids=lambda text: text[:12]
)
def test_the_rules_in_their_guide_are_sound(example: str) -> None:
    loaded = load(example, {})
    assert [str(fault) for fault in loaded.problems] == []
    assert [w for w in loaded.warnings if w.place.startswith("rules")] == []
    assert loaded.declaration.rules


def test_the_guide_of_rules_names_every_method() -> None:
    assert [method for method in METHODS if method not in RULES] == []


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_no_guide_points_at_a_file_that_is_not_there(guide: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", guide.read_text())
    assert [link for link in links if not (guide.parent / link).exists()] == []


@pytest.mark.parametrize(
    "example", re.findall(r"```yaml\n(.*?)```", EXPORT, re.DOTALL), ids=lambda text: text[:7]
)
def test_the_exports_and_sinks_in_their_guide_are_sound(example: str) -> None:
    loaded = load(example, {"S3_SECRET": "x", "HEC_TOKEN": "x", "ELASTIC_KEY": "x"})
    assert [str(each) for each in (*loaded.problems, *loaded.warnings)] == []
    assert loaded.declaration.exports or loaded.declaration.sinks


def test_the_bounds_of_connections_are_told_with_their_defaults() -> None:
    guide = (ROOT / "docs" / "connections.md").read_text()
    rows = re.findall(r"^\| `TOOLBUS_(\w+)` \| `?([^ `|]+)`?.*?\|", guide, re.MULTILINE)
    told = {name.lower(): default.replace(",", "") for name, default in rows}
    fields = IngressSettings.model_fields
    for name, default in told.items():
        declared = fields[name].default
        assert (
            default == "none"
            if declared == ""
            else default in (str(declared), f"{declared:g}" if isinstance(declared, float) else "")
        ), name
    bounds = {name for name in fields if name.startswith("most_per") or name.endswith("_timeout")}
    assert bounds - {"call_timeout"} <= told.keys()
