"""The guides agree with the code that they describe."""

import re
from pathlib import Path

import pytest
import yaml

from toolbus_common.config import (
    Access,
    ConfigModel,
    Configuration,
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
from toolbus_common.errors import ToolbusError
from toolbus_common.rules.schema import METHODS
from toolbus_ingress.http.jsonrpc import failure
from toolbus_ingress.settings import Settings as IngressSettings

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
ERRORS = (REFERENCE / "errors.md").read_text()
CONFIGURATION = (REFERENCE / "configuration.md").read_text()
RULES = (ROOT / "docs" / "how-to" / "rules.md").read_text()
README = (ROOT / "README.md").read_text()
UNDOCUMENTED = {"internal", "refused", "unavailable", "upstream_failed"}  # roots of the tree


def classes(root: type[ToolbusError]) -> list[type[ToolbusError]]:
    """Return a class and all its subclasses."""
    found = [root, *(cls for child in root.__subclasses__() for cls in classes(child))]
    return [cls for cls in found if cls.__module__ == ToolbusError.__module__]


@pytest.mark.parametrize("cls", classes(ToolbusError), ids=lambda cls: cls.__name__)
def test_an_error_is_documented_with_its_codes(cls: type[ToolbusError]) -> None:
    if cls.code in UNDOCUMENTED:
        return
    row = re.search(rf"^\| `{cls.code}` \| (-\d+) \| (\d+) \|", ERRORS, re.MULTILINE)
    assert row, f"docs/reference/errors.md does not list {cls.code}"
    answer = failure(cls("A sentence."))
    assert answer.status == int(row[2])
    assert f'"code":{row[1]}'.encode() in answer.body


def section(model: str) -> str:
    """Return the part of the configuration reference about a model."""
    found = re.search(
        rf"^## {model}\n(.*?)(?=^## |^<!-- |\Z)", CONFIGURATION, re.DOTALL | re.MULTILINE
    )
    assert found, f"no section about {model}"
    return found[1]


@pytest.mark.parametrize("name", Configuration.model_fields)
def test_every_section_of_the_configuration_is_documented(name: str) -> None:
    assert re.search(rf"^\| `{name}` \| .+ \| .+ \|$", section("Sections"), re.MULTILINE)


@pytest.mark.parametrize(
    "model",
    [
        Server, Key, Team, User, Customer, Group, Rule, Webhook, Export, Sink, Reader, Issuer,
        Access, Level,
    ],
)  # fmt: skip
def test_every_field_of_the_configuration_is_documented(model: type[ConfigModel]) -> None:
    kept_by_the_command = {"secret_hash", "revoked"}
    text = section(model.__name__)
    for taken_over in re.findall(r"every field of (.*)\.$", text, re.MULTILINE):
        for base in re.findall(r"\[(\w+)\]", taken_over):
            text += section(base)
            text += "".join(map(section, re.findall(r"every field of \[(\w+)\]", section(base))))
    for field in set(model.model_fields) - kept_by_the_command:
        assert re.search(rf"^\| `{field}` \|.*\| .+ \|$", text, re.MULTILINE), field


def test_every_period_is_documented() -> None:
    for period in Period:
        assert period.value in CONFIGURATION


def test_the_readmes_configuration_is_valid_yaml_of_known_sections() -> None:
    agent, example = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert set(yaml.safe_load(agent)) == {"servers", "providers", "model_prices", "prices", "keys"}
    assert set(yaml.safe_load(example)) == {"servers", "customers", "teams", "keys", "prices"}


def test_the_guide_of_rules_names_every_method() -> None:
    assert [method for method in METHODS if method not in RULES] == []


def test_the_limits_of_connections_are_documented_with_their_defaults() -> None:
    guide = (REFERENCE / "connection-limits.md").read_text()
    rows = re.findall(r"^\| `TOOLBUS_(\w+)` \| `?([^ `|]+)`?.*?\|", guide, re.MULTILINE)
    values = {name.lower(): default.replace(",", "") for name, default in rows}
    fields = IngressSettings.model_fields
    for name, default in values.items():
        declared = fields[name].default
        assert (
            default == "none"
            if declared == ""
            else default in (str(declared), f"{declared:g}" if isinstance(declared, float) else "")
        ), name
    bounds = {name for name in fields if name.startswith("max_per") or name.endswith("_timeout")}
    assert bounds - {"call_timeout"} <= values.keys()
