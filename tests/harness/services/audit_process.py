"""Audit as a separate process that a test can kill at any time."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.engines.engine import die_with_parent
from harness.engines.migrated_tables import migrated
from toolbus_common.settings import Settings

AUDIT = "from toolbus_common.service.process import run; raise SystemExit(run(['audit']))"


@contextmanager
def audit_process(
    settings: Settings, log: Path, program: str = AUDIT, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run audit until the context ends, then kill it.

    `environment` contains additional settings.
    """
    state_dir = str(migrated(settings.state_dir))
    given = {"STATE_DIR": state_dir, "NATS_URL": settings.nats_url, **environment}
    given = {f"TOOLBUS_{name}": value for name, value in given.items()}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=os.environ | {"TOOLBUS_CLICKHOUSE_URL": ""} | given,
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
