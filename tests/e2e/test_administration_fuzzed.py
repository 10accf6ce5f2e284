"""The administration keeps to its own document, whatever is sent: fuzzed through a whole gateway.

`TOOLBUS_FUZZ_SECONDS=600` looks longer, and elsewhere every time.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.clients.admin_client import at
from harness.engines.engine import installed
from harness.gateway.launched_gateway import Launched
from toolbus_common.admin_api.operations import OPERATIONS
from toolbus_common.admin_api.roles import ROLES

SECRETS = {role: f"tba_{role}_e2e-secret-of-the-fuzzer" for role in ROLES}
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
LONGER = os.environ.get("TOOLBUS_FUZZ_SECONDS", "")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    launched = Launched(tmp_path_factory.mktemp("fuzzed"))
    try:
        launched.configure(
            {"admins": {role: {"role": role, "secret": each} for role, each in SECRETS.items()}}
        )
        launched.start()
        yield launched
    finally:
        launched.stop()


def fuzzed(place: Launched, *options: str, secret: str = "") -> None:
    """One run over every operation; fails with all it found."""
    command = [installed("schemathesis"), "--config-file", str(CONFIGURATION), "run"]
    command += [f"{at(place).base}/api/openapi.json", "--no-color", "--warnings", "off", *options]
    command += ["--checks", "all"]
    command += ["-H", f"Authorization: Bearer {secret}"] if secret else []
    kept = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    ran = subprocess.run(
        command, cwd=place.directory, env=kept, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    own = len(OPERATIONS) + 1  # and the document itself
    assert f"Tested: {own}" in ran.stdout, ran.stdout
    assert '"request.failed"' not in place.logs()


def test_what_an_admin_sends_is_answered_as_the_document_says(place: Launched) -> None:
    if LONGER:
        options = ["--phases", "coverage,fuzzing,stateful", "--max-time", LONGER]
    else:
        options = ["--phases", "fuzzing", "-n", "4", "--generation-deterministic"]
    fuzzed(place, *options, secret=SECRETS["admin"])


def test_who_may_only_look_is_answered_as_the_document_says(place: Launched) -> None:
    options = ["--phases", "fuzzing", "-n", "1", "--generation-deterministic"]
    fuzzed(place, *options, secret=SECRETS["viewer"])


def test_who_has_no_key_is_answered_as_the_document_says(place: Launched) -> None:
    fuzzed(place, "--phases", "fuzzing", "-n", "1", "--generation-deterministic")
