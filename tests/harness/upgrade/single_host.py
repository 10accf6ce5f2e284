"""`toolbus up` of one version or another, with the same state directory."""

from pathlib import Path

from harness.gateway.launched_gateway import Launched
from harness.upgrade.version import Version


class SingleHost(Launched):
    """`toolbus up` of a version, which may change between two starts."""

    def __init__(self, directory: Path, version: Version) -> None:
        super().__init__(directory)
        self.version = version
        (self.state_dir / "clickhouse").mkdir(parents=True)  # so that it gets no tables of a test

    def command(self) -> list[str]:
        """Return the command line."""
        return [self.version.command, *super().command()[1:]]

    def operate(self, *words: str) -> str:
        """Run a command of the version that is used now."""
        return self.version.run(*words, "--state-dir", str(self.state_dir))
