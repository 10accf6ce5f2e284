"""The Helm chart agrees with compose, the services' settings and the metrics, without helm."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolbus_common.observability import metrics
from toolbus_common.service.names import SERVICES

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "toolbus"
STATE = "/var/lib/toolbus/"
TEMPLATES = "\n".join(path.read_text() for path in sorted((CHART / "templates").iterdir()))
KEYS: dict[str, dict[str, str]] = yaml.safe_load((CHART / "files" / "keys.yaml").read_text())
LOAD: dict[str, dict[str, str]] = yaml.safe_load((CHART / "files" / "load.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
# Files that replicas share and compose, with one replica, leaves to the first start.
CREATED_AT_START = {
    "ingress": {"client-state.key"},
    "audit": {"evidence/key.pem"},
    "oauth": {"oauth.key", "oauth-vault.key"},
}


def known(service: str) -> set[str]:
    """Return the variables of a service's settings."""
    settings = importlib.import_module(f"toolbus_{service}.settings").Settings
    return {f"TOOLBUS_{name.upper()}" for name in settings.model_fields}


def mounted_by_compose(service: str) -> set[str]:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    secrets = compose["services"][service]["secrets"]
    return {each["target"].removeprefix(STATE) for each in secrets}


@pytest.mark.parametrize("service", [*SERVICES, "provision"])
def test_a_service_receives_the_files_that_compose_gives_it(service: str) -> None:
    wanted = mounted_by_compose(service) | CREATED_AT_START.get(service, set())
    assert set(KEYS[service]) == wanted


def test_every_service_has_files() -> None:
    assert set(KEYS) == {*SERVICES, "provision"}


@pytest.mark.parametrize("service", SERVICES)
def test_the_settings_of_files_are_settings_of_the_service(service: str) -> None:
    assert set(KEYS[service].values()) <= known(service)


def test_the_templates_name_known_settings() -> None:
    named = set(re.findall(r"TOOLBUS_[A-Z_]+", TEMPLATES))
    assert len(named) > 10
    assert named <= {each for service in SERVICES for each in known(service)}


@pytest.mark.parametrize("service", SERVICES)
def test_the_values_accept_known_settings_that_the_chart_does_not_set(service: str) -> None:
    of_service = SCHEMA["properties"]["services"]["properties"][service]
    accepted = set(of_service["properties"]["settings"]["propertyNames"]["enum"])
    assert accepted <= known(service)
    assert accepted.isdisjoint(KEYS[service].values())
    shared = SCHEMA["properties"]["defaults"]["properties"]["settings"]["propertyNames"]["enum"]
    assert set(shared) <= accepted


def test_the_default_settings_are_accepted() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values["services"]) == set(SERVICES)
    for service, given in values["services"].items():
        assert set(given.get("settings", {})) <= known(service)


def test_the_chart_has_the_alerts_of_the_repository() -> None:
    alerts = CHART / "files" / "alerts.yml"
    assert alerts.is_symlink()
    assert alerts.resolve() == ROOT / "deploy" / "prometheus" / "alerts.yml"


def test_load_is_measured_by_existing_metrics() -> None:
    names = {name for each in LOAD.values() for name in re.findall(r"toolbus_\w+", each["query"])}
    existing = {each._name for each in vars(metrics).values() if hasattr(each, "_labelnames")}
    assert {re.sub(r"_sum$", "", name) for name in names} <= existing
    assert set(LOAD) <= set(SERVICES)
