"""Runs during which one of two policy replicas is killed at a given step of a call that reads."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from harness.clients.bus_operator import key
from harness.gateway.cluster import Cluster, Upstream
from harness.programs.crashing_policy import CRASH, HANDED_OVER, READ, READING, RECORDED, SENT
from harness.waits import until_blocking
from toolbus_common.config import Configuration

STEPS = (READING, READ, SENT, RECORDED, HANDED_OVER)
LABELS: dict[str, dict[str, Any]] = {
    "notes": {"reads": "private", "writes": "nothing"},
    "web": {"reads": "untrusted", "writes": "nothing"},
    "mail": {"reads": [], "writes": "outside"},
}
REPLICAS = 2


@dataclass(frozen=True)
class Case:
    """One run: the step of its second read at which policy dies, and the order of its reads."""

    step: str
    number: int = 0

    @property
    def key(self) -> str:
        """The key of the calls, which also identifies their run."""
        return f"{self.step}-{self.number}"

    @property
    def secret(self) -> str:
        """The secret of the key."""
        return f"tbk_{self.key}_a-secret-of-flows"

    @property
    def reads(self) -> tuple[str, str]:
        """The servers that the run reads, in their order."""
        return ("notes", "web") if self.number % 2 else ("web", "notes")


class FlowCrashes:
    """A cluster with two policies, of which one dies on request."""

    def __init__(self, directory: Path, cases: Sequence[Case]) -> None:
        self.cases = cases
        self._upstream = Upstream(directory / "upstream")
        self._cluster = Cluster(directory / "cluster", TOOLBUS_CALL_TIMEOUT="8")
        self._cluster.program = "crashing_policy.py"
        self._callers = ThreadPoolExecutor(32)

    @contextmanager
    def running(self) -> Iterator["FlowCrashes"]:
        """Run everything until the context ends."""
        configuration = Configuration.model_validate({
            "flow": "refuse",
            "servers": {name: {"url": self._upstream.url, **each} for name, each in LABELS.items()},
            "keys": {case.key: key(case.secret) for case in self.cases},
        })  # fmt: skip
        with (
            self._upstream.running(),
            self._cluster.running(configuration) as cluster,
            self._callers,
        ):
            cluster.run("policy").wait_ready()
            tools = [f"{name}__say" for name in LABELS]
            cluster.until_listed(cluster.client(self.cases[0].secret), *tools)
            yield self

    def run(self, case: Case) -> tuple[str, str]:
        """Return the answers of the sink: after the crash, and after the read is repeated."""
        first, second = case.reads
        assert self.call(case, first) == case.key
        crash = self._cluster.state_dir / CRASH
        crash.write_text(f"{case.step} {case.key}")
        self._callers.submit(self.call, case, second)  # its answer is lost, or late
        until_blocking(lambda: len(self._alive()) < REPLICAS, f"policy dies: {case.key}")
        crash.unlink()
        for process in [*self._cluster.processes["policy"]]:
            if not process.alive:
                process.ended()
                self._cluster.processes["policy"].remove(process)
        at_once = self.call(case, "mail")
        self._cluster.run("policy").wait_ready()
        assert self.call(case, second) == case.key
        return at_once, self.call(case, "mail")

    def call(self, case: Case, server: str) -> str:
        """Return the text or the error code of a call; empty if it has no answer."""
        with suppress(OSError, HTTPException):
            answer = self._cluster.client(case.secret).call(f"{server}__say", {"text": case.key})
            return answer.code or answer.text
        return ""

    def _alive(self) -> list[object]:
        return [each for each in self._cluster.processes["policy"] if each.alive]
