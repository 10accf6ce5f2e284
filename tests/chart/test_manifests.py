"""Every manifest is valid for Kubernetes, has no more rights than it needs, and is reviewed."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.charts.helm import CHART, NEWEST, ROOT, Manifest, helm, named, parsed, pods, run
from harness.charts.kubernetes_schemas import TEMPLATE
from toolbus_common.service.names import SERVICES

HERE = Path(__file__).parent
REVIEWED = ("minimal", "complete")


def validated(manifests: str, schemas: Path, version: str, directory: Path) -> tuple[int, str]:
    """Check manifests with kubeconform; return its exit code and its report."""
    file = directory / "manifests.yaml"
    file.write_text(manifests)
    location = f"{schemas}/{TEMPLATE}"
    done = run(
        *("kubeconform", "-strict", "-summary", "-kubernetes-version", version),
        *("-schema-location", location, str(file)),
    )
    return done.returncode, done.stdout + done.stderr


def test_helm_finds_no_fault(values: Path) -> None:
    done = helm("lint", values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", ["1.27.0", NEWEST])
def test_kubernetes_accepts_every_manifest(
    version: str, values: Path, schemas: Path, tmp_path: Path
) -> None:
    rendered = helm("template", values, version).stdout
    code, report = validated(rendered, schemas, version, tmp_path)
    assert code == 0, report
    assert f"Valid: {len(parsed(rendered))}, Invalid: 0, Errors: 0, Skipped: 0" in report


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Deployment", ("spec", "template", "spec", "containers", 0)),
        ("Job", ("spec",)),
        ("NetworkPolicy", ("spec",)),
        ("HTTPRoute", ("spec", "rules", 0)),
        ("ServiceMonitor", ("spec", "endpoints", 0)),
        ("PrometheusRule", ("spec", "groups", 0)),
    ],
)
def test_the_schemas_refuse_an_unknown_field(
    kind: str, path: tuple[Any, ...], schemas: Path, tmp_path: Path
) -> None:
    manifests = parsed(helm("template", HERE / "values" / "complete.yaml").stdout)
    changed = next(each for each in manifests if each["kind"] == kind)
    place = changed
    for step in path:
        place = place[step]
    place["unknownField"] = "x"
    code, report = validated(yaml.safe_dump(changed), schemas, NEWEST, tmp_path)
    assert code != 0
    assert "unknownField" in report


def test_no_pod_has_rights_that_it_does_not_need(manifests: list[Manifest]) -> None:
    found = pods(manifests)
    assert set(SERVICES) <= set(found)
    for pod in found.values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False  # a variable such as TOOLBUS_HTTP_PORT
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert {next(iter(set(each) - {"name"})) for each in pod["volumes"]} <= {
            *("emptyDir", "secret", "persistentVolumeClaim", "configMap"),
        }
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 10001
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_no_container_has_privileges_or_lacks_limits(manifests: list[Manifest]) -> None:
    for pod in pods(manifests).values():
        (container,) = pod["containers"]
        assert "initContainers" not in pod
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert not any("hostPort" in each for each in container.get("ports", []))


def test_every_account_is_one_pods_and_has_no_token_and_no_role(
    manifests: list[Manifest],
) -> None:
    accounts = [each for each in manifests if each["kind"] == "ServiceAccount"]
    assert all(each["automountServiceAccountToken"] is False for each in accounts)
    used = sorted(pod["serviceAccountName"] for pod in pods(manifests).values())
    assert used == sorted(each["metadata"]["name"] for each in accounts)
    assert not [each for each in manifests if "Role" in each["kind"]]


def test_no_manifest_holds_a_secret(manifests: list[Manifest]) -> None:
    assert not [each for each in manifests if each["kind"] == "Secret"]


def test_a_pod_may_live_as_long_as_its_service_drains(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        if name in SERVICES:
            settings = {each["name"]: each.get("value", "") for each in pod["containers"][0]["env"]}
            needed = sum(float(settings[f"TOOLBUS_DRAIN_{each}"]) for each in ("DELAY", "SECONDS"))
            assert pod["terminationGracePeriodSeconds"] >= needed + 10


def test_no_variable_is_set_twice(manifests: list[Manifest]) -> None:
    for pod in pods(manifests).values():
        names = [each["name"] for each in pod["containers"][0]["env"]]
        assert sorted(names) == sorted(set(names))


def test_a_selector_selects_the_pods_of_one_component(manifests: list[Manifest]) -> None:
    for each in manifests:
        if each["kind"] in ("Deployment", "StatefulSet"):
            component = each["metadata"]["labels"]["app.kubernetes.io/component"]
            selector = each["spec"]["selector"]["matchLabels"]
            assert selector["app.kubernetes.io/component"] == component
            assert selector.items() <= each["spec"]["template"]["metadata"]["labels"].items()
        if each["kind"] in ("NetworkPolicy", "PodDisruptionBudget"):
            selected = each["spec"].get("podSelector", each["spec"].get("selector"))["matchLabels"]
            component = each["metadata"]["labels"]["app.kubernetes.io/component"]
            assert selected["app.kubernetes.io/component"] == component


def test_the_alerts_are_those_of_the_repository() -> None:
    manifests = parsed(helm("template", HERE / "values" / "complete.yaml").stdout)
    rule = named(manifests, "PrometheusRule", "toolbus")
    alerts = ROOT / "deploy" / "prometheus" / "alerts.yml"
    assert rule["spec"] == yaml.safe_load(alerts.read_text())


def test_a_packaged_chart_has_the_alerts(tmp_path: Path) -> None:
    done = run("helm", "package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.iterdir()
    words = ("--set", "monitoring.prometheusRule.enabled=true", "--kube-version", NEWEST)
    values = HERE / "values" / "minimal.yaml"
    shown = run("helm", "template", "toolbus", str(package), "--values", str(values), *words)
    assert "ToolbusErrorBudgetBurns" in shown.stdout


@pytest.mark.parametrize("name", REVIEWED)
def test_a_changed_manifest_is_reviewed(name: str) -> None:
    every = helm("template", HERE / "values" / f"{name}.yaml").stdout.split("---\n")
    # The alerts are compared with their own file.
    rendered = "---\n".join(each for each in every if "kind: PrometheusRule" not in each)
    golden = HERE / "golden" / f"{name}.yaml"
    if os.environ.get("TOOLBUS_WRITE_GOLDEN"):
        golden.write_text(rendered)
    assert rendered == golden.read_text(), "review it, then TOOLBUS_WRITE_GOLDEN=1 make chart"
