"""The catalogue of metrics, the dashboard and the collector's file agree with the code."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.sdk import environment_variables
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from toolbus_common.errors import ToolbusError
from toolbus_common.observability import metrics
from toolbus_common.observability.call_metrics import CallDurations
from toolbus_common.observability.otlp_env import exports_metrics, exports_traces
from toolbus_common.service.names import SERVICES

Described = MetricWrapperBase | CallDurations
ROOT = Path(__file__).resolve().parents[2]
METRICS = (ROOT / "docs" / "reference" / "metrics.md").read_text()
GUIDE = (ROOT / "docs" / "how-to" / "observability.md").read_text()
SOURCE = [path for part in ("libs", "services", "cli") for path in (ROOT / part).rglob("*.py")]
ALL = [each for each in vars(metrics).values() if isinstance(each, Described)]


def exposed(metric: Described) -> str:
    """Return the name that Prometheus scrapes."""
    return f"{metric._name}_total" if metric._type == "counter" else str(metric._name)


def row(metric: Described) -> tuple[str, str, tuple[str, ...]]:
    return exposed(metric), str(metric._type), tuple(metric._labelnames)


def documented() -> list[tuple[str, str, tuple[str, ...]]]:
    """Return the rows of the catalogue."""
    rows = re.findall(
        r"^\| `(toolbus_\w+)` \| (\w+) \| (.*?) \| \w+ \| .+ \|$", METRICS, re.MULTILINE
    )
    return [(name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows]


def test_the_catalogue_lists_exactly_the_metrics() -> None:
    assert sorted(documented()) == sorted(map(row, ALL)), "run: make reference"


def test_every_label_is_documented_with_its_limit() -> None:
    bounded = re.search(r"\| label \| [^\n]*\n(.*?)\n\n", METRICS, re.DOTALL)
    assert bounded
    names = {
        name
        for line in bounded[1].splitlines()
        for name in re.findall(r"`(\w+)`", line[: line.index("|", 1)])
    }
    assert {label for metric in ALL for label in metric._labelnames} == names


def test_metrics_are_created_in_one_module() -> None:
    makes = re.compile(r"from prometheus_client import [^\n]*(Counter|Gauge|Histogram|Summary)")
    found = [path.name for path in SOURCE if makes.search(path.read_text())]
    assert found == ["metrics.py"]
    known = {family.name for family in REGISTRY.collect() if family.name.startswith("toolbus_")}
    assert known == {metric._name for metric in ALL}


@pytest.mark.parametrize("metric", ALL, ids=exposed)
def test_a_metrics_name_follows_the_conventions(metric: Described) -> None:
    assert re.fullmatch(r"toolbus(_[a-z]+)+", metric._name)
    if metric._type == "histogram":
        assert metric._name.endswith("_seconds")


def panels() -> list[dict[str, Any]]:
    board = json.loads((ROOT / "deploy" / "grafana" / "operations-metrics.json").read_text())
    found: list[dict[str, Any]] = board["panels"]
    return found


def test_the_dashboard_queries_existing_metrics() -> None:
    request = {
        re.sub(r"_bucket$", "", name)
        for panel in panels()
        for target in panel["targets"]
        for name in re.findall(r"toolbus_\w+", target["expr"])
    }
    assert request <= {exposed(metric) for metric in ALL}


def alerts() -> dict[str, Any]:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    return {each["alert"]: each for group in rules["groups"] for each in group["rules"]}


def test_the_alerts_query_existing_metrics_and_values() -> None:
    used = "\n".join(each["expr"] for each in alerts().values())
    assert set(re.findall(r"toolbus_\w+", used)) <= {exposed(metric) for metric in ALL}
    codes = {code for group in re.findall(r'(?:outcome|decision)=~"([^"]*)"', used)
             for code in group.split("|")}  # fmt: skip
    assert codes <= {each.code for each in errors_from(ToolbusError)}


def errors_from(root: type[ToolbusError]) -> list[type[ToolbusError]]:
    return [root, *(found for child in root.__subclasses__() for found in errors_from(child))]


def test_every_alert_has_a_section() -> None:
    page = (ROOT / "docs" / "how-to" / "alerts.md").read_text()
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == list(alerts())
    for name, alert in alerts().items():
        annotations = alert["annotations"]
        assert annotations["runbook"] == f"docs/how-to/alerts.md#{name.lower()}"
        severity = alert["labels"]["severity"]
        assert f"## {name}\n\n{annotations['summary']} Severity: {severity}.\n" in page


def test_the_dashboards_panels_group_by_labels_their_metric_has() -> None:
    labels = {exposed(metric): {*metric._labelnames, "le"} for metric in ALL}
    for panel in panels():
        for target in panel["targets"]:
            (name,) = {
                re.sub(r"_bucket$", "", each) for each in re.findall(r"toolbus_\w+", target["expr"])
            }
            by = re.findall(r"by \(([^)]*)\)", target["expr"])
            wanted = {each.strip() for group in by for each in group.split(",")}
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert shown <= wanted <= labels[name], target["expr"]


def test_the_collector_receives_traces_and_scrapes_every_service() -> None:
    documented = yaml.safe_load((ROOT / "deploy" / "otel" / "collector.yaml").read_text())
    assert documented["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(":4318")
    (scraped,) = documented["receivers"]["prometheus"]["config"]["scrape_configs"]
    targets = [target for each in scraped["static_configs"] for target in each["targets"]]
    assert sorted(targets) == sorted(f"{service}:8081" for service in SERVICES)
    for pipeline in documented["service"]["pipelines"].values():
        assert set(pipeline["receivers"]) <= set(documented["receivers"])
        assert set(pipeline["processors"]) <= set(documented["processors"])
        assert set(pipeline["exporters"]) <= set(documented["exporters"])


def test_compose_enables_traces_only_on_request() -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    environment = compose["services"]["policy"]["environment"]
    wanted = {name: "" for name in environment if name.startswith("OTEL_")}
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in wanted
    assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"].endswith(":-}")
    assert not exports_traces(wanted)
    assert not exports_metrics(wanted)
    assert compose["services"]["collector"]["profiles"] == ["otel"]


@pytest.mark.parametrize("variable", re.findall(r"`(OTEL_\w+)", GUIDE))
def test_a_variable_in_the_guide_is_read_by_the_code(variable: str) -> None:
    known = {value for value in vars(environment_variables).values() if isinstance(value, str)}
    ours = (ROOT / "libs/common/toolbus_common/observability/otlp_env.py").read_text()
    exporter = re.sub("TRACES|METRICS", "{signal}", variable)
    assert variable in known or variable.endswith("_") or f'"{exporter}"' in ours


def literals(call: str) -> set[str]:
    """Return the literals passed first to calls of this name in the code."""
    made = re.compile(rf'\.{call}\(\s*"([a-z_]+\.[a-z_.]+)"')
    return {name for path in SOURCE for name in made.findall(path.read_text())}


def test_the_guide_lists_exactly_the_spans() -> None:
    made = literals("span") | literals("below") | literals("linked")
    assert "toolbus.reserve" in made
    assert made == set(re.findall(r"^[ │├└─]*(toolbus\.\w+) +[a-z]+ ", GUIDE, re.MULTILINE))


def test_the_guide_lists_every_attribute() -> None:
    noted = literals("note")
    assert "toolbus.call.id" in noted
    assert [name for name in noted if f"`{name}`" not in GUIDE] == []
