"""JSON schemas of Kubernetes in the form that kubeconform reads, without a network.

Kinds of Kubernetes itself come from the package `kubernetes_validate`, others from the definitions
in the Go modules of their operators. Both refuse unknown fields.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]
# What kubeconform replaces in the location of schemas.
TEMPLATE = "{{.NormalizedKubernetesVersion}}/{{.ResourceKind}}{{.KindSuffix}}.json"
KINDS = (
    *("deployment-apps-v1", "statefulset-apps-v1", "job-batch-v1", "service-v1"),
    *("serviceaccount-v1", "persistentvolumeclaim-v1", "networkpolicy-networking-v1"),
    *("ingress-networking-v1", "poddisruptionbudget-policy-v1"),
    "horizontalpodautoscaler-autoscaling-v2",
)
# A Go module, and the files in it that define kinds.
OPERATORS = {
    "github.com/kedacore/keda/v2@v2.18.1": ("config/crd/bases/keda.sh_scaledobjects.yaml",),
    "sigs.k8s.io/gateway-api@v1.4.0": (
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    ),
    "github.com/prometheus-operator/prometheus-operator@v0.80.1": (
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
}
_DEFINITIONS = re.compile(r"^/api/_definitions\.json(#/\$defs/.*)$")


def write_schemas(directory: Path, versions: tuple[str, ...]) -> None:
    """Write the schema of each kind for each version of Kubernetes."""
    operators = dict(_of_operators())
    for version in versions:
        target = directory / f"v{version}"
        target.mkdir(parents=True, exist_ok=True)
        for name, schema in (*_of_kubernetes(version), *operators.items()):
            (target / f"{name}.json").write_text(json.dumps(schema))


def _of_kubernetes(version: str) -> Iterator[tuple[str, Schema]]:
    """Yield each kind with its definitions in one document."""
    source = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    definitions = json.loads((source / "_definitions.json").read_text())["$defs"]
    for name in KINDS:
        schema = json.loads((source / f"{name}.json").read_text())
        yield name, _with_local_references({**schema, "$defs": definitions})


def _with_local_references(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_local_references(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_local_references(each) for each in value]
    found = _DEFINITIONS.match(value) if isinstance(value, str) else None
    return found[1] if found else value


def _of_operators() -> Iterator[tuple[str, Schema]]:
    """Yield the kinds that operators define."""
    for module, paths in OPERATORS.items():
        directory = _module_directory(module)
        for path in paths:
            spec = yaml.safe_load((directory / path).read_text())["spec"]
            for version in spec["versions"]:
                group = spec["group"].partition(".")[0]
                name = f"{spec['names']['kind'].lower()}-{group}-{version['name']}"
                yield name, _strict(version["schema"]["openAPIV3Schema"], top=True)


def _module_directory(module: str) -> Path:
    command = ["go", "mod", "download", "-json", module]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"Go cannot download {module}: {done.stdout}{done.stderr}")
    return Path(json.loads(done.stdout)["Dir"])


def _strict(schema: Any, *, top: bool = False) -> Any:
    """Return a schema that refuses fields that it does not list, as the API server drops them."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {name: _strict(each) for name, each in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        changed.setdefault("additionalProperties", False)
    if top:
        changed["properties"]["metadata"] = {"type": "object"}
    return changed
