"""Mistakes in values are refused with what to do, and right ones have their effect."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.charts.helm import CHART, Manifest, helm, named, parsed, pods
from toolbus_common.service.names import SERVICES

HERE = Path(__file__).parent
MINIMAL: dict[str, Any] = yaml.safe_load((HERE / "values" / "minimal.yaml").read_text())


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return values in which single ones are replaced."""
    both = {
        name: merged(base[name], value) if isinstance(value, dict) and base.get(name) else value
        for name, value in over.items()
    }
    return {**base, **both}


def rendered(directory: Path, over: dict[str, Any]) -> tuple[str, list[Manifest]]:
    """Render the chart with minimal values and others; return the error and the manifests."""
    file = directory / "values.yaml"
    file.write_text(yaml.safe_dump(merged(MINIMAL, over)))
    done = helm("template", file)
    return done.stderr if done.returncode else "", parsed(done.stdout)


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        ({"publicUrl": ""}, "publicUrl"),
        ({"publicUrl": "toolbus.example"}, "publicUrl"),
        ({"replicas": 2}, "additional properties 'replicas' not allowed"),
        ({"nats": {"url": ""}}, "/nats/url"),
        ({"nats": {"url": "http://nats:4222"}}, "/nats/url"),
        ({"nats": {"ulr": "nats://nats:4222"}}, "'ulr' not allowed"),
        ({"valkey": {"url": "redis://:password@valkey:6379"}}, "/valkey/url"),
        ({"valkey": {"existingSecret": ""}}, "set valkey.url, or valkey.existingSecret"),
        ({"clickhouse": {"existingSecret": ""}}, "set clickhouse.url or clickhouse.exist"),
        ({"services": {"gateway": {}}}, "'gateway' not allowed"),
        ({"services": {"policy": {"existingSecret": ""}}}, "/services/policy/existingSecret"),
        ({"services": {"policy": {"replica": 3}}}, "/services/policy/replica"),
        ({"services": {"policy": {"replicas": "3"}}}, "got string, want integer"),
        ({"services": {"policy": {"settings": {"TOOLBUS_HTTP_PORT": "1"}}}}, "TOOLBUS_HTTP_PORT"),
        ({"services": {"policy": {"settings": {"TOOLBUS_REDIS_TIMEOUT": 2}}}}, "want string"),
        ({"defaults": {"settings": {"TOOLBUS_REDIS_TIMEOUT": "2"}}}, "TOOLBUS_REDIS_TIMEOUT"),
        ({"defaults": {"state": {"type": "hostPath"}}}, "/defaults/state/type"),
        ({"defaults": {"autoscaling": {"type": "HPA"}}}, "/defaults/autoscaling/type"),
        ({"services": {"oauth": {"replicas": 2}}}, "set signingKeys.accessMode=ReadWriteMany"),
        ({"services": {"oauth": {"autoscaling": {"type": "hpa"}}}}, "set signingKeys.accessMode"),
        ({"services": {"audit": {"autoscaling": {"type": "keda"}}}}, "set keda.prometheusAddress"),
        ({"services": {"policy": {"autoscaling": {"minReplicas": 11}}}}, "lower it"),
        ({"exposure": {"httpRoute": {"enabled": True}}}, "set exposure.httpRoute.parentRefs"),
        ({"runAsUser": 0}, "/runAsUser"),
        ({"networkPolicy": {"dns": []}}, "/networkPolicy/dns"),
        ({"networkPolicy": {"internet": []}}, "/networkPolicy/internet"),
    ],
)
def test_a_mistake_is_refused(over: dict[str, Any], reason: str, tmp_path: Path) -> None:
    error, _ = rendered(tmp_path, over)
    assert reason in error


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_is_set_by_the_chart_or_accepted(service: str) -> None:
    complete = parsed(helm("template", HERE / "values" / "complete.yaml").stdout)
    by_chart = {each["name"] for each in pods(complete)[service]["containers"][0]["env"]}
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["services"]
    settings = schema["properties"][service]["properties"]["settings"]
    accepted = set(settings["propertyNames"]["enum"])
    keys = yaml.safe_load((CHART / "files" / "keys.yaml").read_text())
    of_files = {setting for files in keys.values() for setting in files.values()}
    fields = importlib.import_module(f"toolbus_{service}.settings").Settings.model_fields
    known = {f"TOOLBUS_{name.upper()}" for name in fields} - of_files
    assert known == (by_chart & known) | accepted


def peers(rules: list[dict[str, Any]]) -> set[str]:
    """Return the ports of rules, and `public` for rules of public addresses without a port."""
    return {
        str(port["port"])
        for rule in rules
        for port in rule.get("ports", [{"port": "public" if rule.get("to") else "everything"}])
    }


def test_a_network_policy_allows_what_a_service_needs(tmp_path: Path) -> None:
    _, manifests = rendered(tmp_path, {})
    common = {"53", "4222"}
    wanted = {
        "ingress": common,
        "codemode": common,
        "provision": common,
        "policy": common | {"6379"},
        "executor": common | {"public"},
        "oauth": common | {"public"},
        "audit": common | {"8123", "8443", "public"},
    }
    for name, ports in wanted.items():
        policy = named(manifests, "NetworkPolicy", f"toolbus-{name}")["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert peers(policy["egress"]) == ports
        reached = [each["ports"] for each in policy.get("ingress", [])]
        assert reached == ([[{"protocol": "TCP", "port": "http"}]] if name == "ingress" else [])
    assert set(pods(manifests)) == set(wanted)


def test_public_addresses_exclude_private_ones_and_metadata_services(tmp_path: Path) -> None:
    _, manifests = rendered(tmp_path, {})
    (_, _, public) = named(manifests, "NetworkPolicy", "toolbus-executor")["spec"]["egress"]
    excluded = {each for peer in public["to"] for each in peer["ipBlock"]["except"]}
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= excluded
    assert {"100.64.0.0/10", "fc00::/7", "fe80::/10"} <= excluded


def test_only_named_peers_reach_the_operations_listeners(tmp_path: Path) -> None:
    monitoring = [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]
    _, manifests = rendered(tmp_path, {"networkPolicy": {"metrics": monitoring}})
    for name in ("ingress", "policy", "audit"):
        *_, rule = named(manifests, "NetworkPolicy", f"toolbus-{name}")["spec"]["ingress"]
        assert rule == {"ports": [{"protocol": "TCP", "port": "operations"}], "from": monitoring}


def test_a_kept_state_directory_belongs_to_one_replica(tmp_path: Path) -> None:
    _, manifests = rendered(tmp_path, {"defaults": {"state": {"type": "persistentVolumeClaim"}}})
    policy = named(manifests, "StatefulSet", "toolbus-policy")["spec"]
    (claim,) = policy["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "state"
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert not any(each["name"] == "state" for each in policy["template"]["spec"]["volumes"])


def test_replicas_that_are_scaled_are_not_set_by_helm(tmp_path: Path) -> None:
    scaling = {"services": {"policy": {"autoscaling": {"type": "hpa", "maxReplicas": 4}}}}
    _, manifests = rendered(tmp_path, scaling)
    assert "replicas" not in named(manifests, "Deployment", "toolbus-policy")["spec"]
    assert named(manifests, "Deployment", "toolbus-executor")["spec"]["replicas"] > 1
    target = named(manifests, "HorizontalPodAutoscaler", "toolbus-policy")["spec"]
    assert target["scaleTargetRef"]["name"] == "toolbus-policy"
    assert target["maxReplicas"] == 4


def test_a_password_is_read_from_its_secret_by_one_service(tmp_path: Path) -> None:
    _, manifests = rendered(tmp_path, {})
    found = {
        (name, each["valueFrom"]["secretKeyRef"]["name"])
        for name, pod in pods(manifests).items()
        for each in pod["containers"][0]["env"]
        if "valueFrom" in each
    }
    assert found == {("policy", "toolbus-valkey"), ("audit", "toolbus-clickhouse")}


def test_the_public_host_is_accepted(tmp_path: Path) -> None:
    _, manifests = rendered(tmp_path, {"publicUrl": "https://toolbus.example:8443"})
    env = {
        each["name"]: each.get("value")
        for each in pods(manifests)["ingress"]["containers"][0]["env"]
    }
    assert env["TOOLBUS_ALLOWED_HOSTS"].split(",")[0] == "toolbus.example"
    assert env["TOOLBUS_ALLOWED_ORIGINS"] == "https://toolbus.example:8443"
