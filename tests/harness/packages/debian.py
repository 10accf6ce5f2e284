"""Programs of the system that tests need: found, or installed with apt where one may.

`python -m harness.packages.debian chromium prometheus` installs those that are missing. `CHROMIUM`,
`PROMETHEUS` and `PROMTOOL` name others.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """A program, by the names it may have, and the packages it comes in."""

    variable: str
    names: tuple[str, ...]
    packages: tuple[str, ...]

    def found(self) -> str | None:
        """Where it is."""
        return os.environ.get(self.variable) or next(
            filter(None, map(shutil.which, self.names)), None
        )

    def path(self) -> str:
        """Where it is; a test may not skip what it promises."""
        if (there := self.found()) is None:
            raise RuntimeError(self.what_to_do)
        return there

    @property
    def what_to_do(self) -> str:
        """For who has none of these."""
        return (
            f"No {self.names[0]} was found. Install it ('apt-get install "
            f"{' '.join(self.packages)}', as root), or name one: {self.variable}=/path/to/it."
        )


CHROMIUM = Program(
    "CHROMIUM",
    ("chromium", "chromium-browser", "google-chrome"),
    ("chromium", "fonts-dejavu-core"),
)
PROMETHEUS = Program("PROMETHEUS", ("prometheus",), ("prometheus",))
PROMTOOL = Program("PROMTOOL", ("promtool",), PROMETHEUS.packages)
_PROGRAMS = {each.names[0]: each for each in (CHROMIUM, PROMETHEUS)}


def install(program: Program) -> None:
    """Have apt install it, if whoever runs this may."""
    for words in (
        ("update", "-qq"),
        ("install", "-qq", "--no-install-recommends", *program.packages),
    ):
        rights = _rights(program)
        command = [*rights, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", *words]
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            sys.exit(program.what_to_do)


def _rights(program: Program) -> list[str]:
    """What a command is begun with that is to run as root."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        return []
    if shutil.which("apt-get") and shutil.which("sudo"):
        return ["sudo", "--non-interactive"]
    sys.exit(program.what_to_do)


if __name__ == "__main__":
    for each in (_PROGRAMS[name] for name in sys.argv[1:]):
        if each.found() is None:
            install(each)
