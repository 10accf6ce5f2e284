"""The REST APIs, fuzzed through a whole gateway, against its OpenAPI document.

`TOOLBUS_FUZZ_SECONDS=600` fuzzes for ten minutes with random input.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.clients.admin_client import at
from harness.clients.admin_operations import openapi_document
from harness.engines.engine import installed
from harness.gateway.launched_gateway import Launched
from toolbus_common.admin_api.roles import ROLES
from toolbus_ingress.live.stream import PATH as LIVE

SECRETS = {role: f"tba_{role}_e2e-secret-of-the-fuzzer" for role in ROLES}
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
LONGER = os.environ.get("TOOLBUS_FUZZ_SECONDS", "")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    launched = Launched(tmp_path_factory.mktemp("fuzzed"))
    with launched.running(
        {"admins": {role: {"role": role, "secret": each} for role, each in SECRETS.items()}}
    ):
        yield launched


def fuzzed(gateway: Launched, *options: str, secret: str = "") -> None:
    """Fuzz every operation once, and fail with all findings."""
    command = [installed("schemathesis"), "--config-file", str(CONFIGURATION), "run"]
    command += [f"{at(gateway).base}/api/openapi.json", "--no-color", "--warnings", "off", *options]
    command += ["--exclude-path", LIVE]  # its response does not end
    command += ["--checks", "all"]
    command += ["-H", f"Authorization: Bearer {secret}"] if secret else []
    environment = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    result = subprocess.run(
        command, cwd=gateway.directory, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    own = (
        sum(map(len, openapi_document()["paths"].values())) - 2
    )  # without the document and the live view
    assert f"Tested: {own}" in result.stdout, result.stdout
    assert '"request.failed"' not in gateway.logs()


def test_an_admins_requests_are_answered_as_documented(gateway: Launched) -> None:
    if LONGER:
        options = ["--phases", "coverage,fuzzing,stateful", "--max-time", LONGER]
    else:
        options = ["--phases", "fuzzing", "-n", "4", "--generation-deterministic"]
    fuzzed(gateway, *options, secret=SECRETS["admin"])


def test_a_viewers_requests_are_answered_as_documented(gateway: Launched) -> None:
    options = ["--phases", "fuzzing", "-n", "1", "--generation-deterministic"]
    fuzzed(gateway, *options, secret=SECRETS["viewer"])


def test_requests_without_a_key_are_answered_as_documented(gateway: Launched) -> None:
    fuzzed(gateway, "--phases", "fuzzing", "-n", "1", "--generation-deterministic")
