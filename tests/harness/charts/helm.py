"""Render the Helm chart with helm, and check manifests with kubeconform."""

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "deploy" / "helm" / "toolbus"
BIN = ROOT / "build" / "bin"
NEWEST = "1.37.0"
Manifest = dict[str, Any]


def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program that `make chart` installed. Raises `RuntimeError` if it is missing."""
    path = BIN / program
    if not path.exists():
        raise RuntimeError(f"There is no {path}; install it with 'make chart'.")
    return subprocess.run(
        [str(path), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HELM_NAMESPACE": "agents"},
    )


def helm(command: str, values: Path, version: str = NEWEST) -> subprocess.CompletedProcess[str]:
    """Run `helm template` or `helm lint --strict` with a file of values."""
    words = ["template", "toolbus"] if command == "template" else ["lint", "--strict"]
    return run("helm", *words, str(CHART), "--kube-version", version, "--values", str(values))


def parsed(text: str) -> list[Manifest]:
    """Return the manifests of a rendered chart."""
    return [each for each in yaml.safe_load_all(text) if each]


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """Return the manifest of a kind with a name."""
    (found,) = [
        each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)
    ]
    return found


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Return the specification of each Pod, by its component."""
    templates = (
        each["spec"]["template"]
        for each in manifests
        if each["kind"] in ("Deployment", "StatefulSet", "Job")
    )
    return {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: each["spec"]
        for each in templates
    }
