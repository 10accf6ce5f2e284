"""The chart rendered for each file of values, and the schemas of Kubernetes, once for all tests."""

from pathlib import Path

import pytest

from harness.charts.helm import NEWEST, Manifest, helm, parsed
from harness.charts.kubernetes_schemas import write_schemas

VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
OLDEST = "1.27.0"  # `kubeVersion` of Chart.yaml


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("schemas")
    write_schemas(directory, (OLDEST, NEWEST))
    return directory


@pytest.fixture(scope="session", params=VALUES, ids=lambda path: path.stem)
def values(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(scope="session")
def manifests(values: Path) -> list[Manifest]:
    rendered = helm("template", values)
    assert rendered.returncode == 0, rendered.stderr
    return parsed(rendered.stdout)
