"""Prometheus server that scrapes the services of a test and evaluates expressions."""

import json
import math
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from harness.engines.engine import Engine
from harness.packages.debian import PROMETHEUS, PROMTOOL

INTERVAL = 0.5  # seconds between two scrapes
SPAN = f"{4 * INTERVAL:g}s"  # Grafana's value for $__rate_interval: four scrapes


@dataclass(frozen=True)
class Series:
    """One series of a result."""

    labels: dict[str, str]
    value: float


class Prometheus(Engine):
    """Prometheus with the jobs of a configuration.

    Test addresses replace the configured targets.
    """

    def __init__(self, directory: Path, jobs: list[Any], addresses: Mapping[str, str]) -> None:
        super().__init__(directory)
        for job in jobs:
            job["scrape_interval"] = job["scrape_timeout"] = f"{int(INTERVAL * 1000)}ms"
            for group in job["static_configs"]:
                group["targets"] = [addresses[target] for target in group["targets"]]
        self._configuration = directory / "prometheus.yml"
        self._configuration.write_text(json.dumps({"scrape_configs": jobs}))

    def command(self) -> list[str]:
        """Return the command line. The samples are stored in the engine's directory."""
        return [
            PROMETHEUS.path(),
            f"--config.file={self._configuration}",
            f"--storage.tsdb.path={self.directory / 'kept'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def request(self, expression: str) -> list[Series]:
        """Evaluate an expression in the same way as Grafana, and return its series.

        NaN values are omitted.
        """
        expression = expression.replace("$__rate_interval", SPAN)
        url = f"http://127.0.0.1:{self.port}/api/v1/query?{urlencode({'query': expression})}"
        with urlopen(url, timeout=30) as answer:
            result = json.load(answer)["data"]["result"]
        found = [Series(each["metric"], float(each["value"][1])) for each in result]
        return [each for each in found if not math.isnan(each.value)]


def faults(page: bytes) -> str:
    """Return the errors that `promtool` finds in a page of metrics; empty if there are none."""
    checked = subprocess.run(
        [PROMTOOL.path(), "check", "metrics"], input=page, capture_output=True, check=False
    )
    return (checked.stdout + checked.stderr).decode()
