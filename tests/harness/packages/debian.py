"""Debian programs that tests need. They are found on the machine, or installed with apt.

apt downloads the packages to `build/debian`, so that no file of theirs is in the repository.

Usage: `python -m harness.packages.debian chromium prometheus` installs the missing programs. The
environment variables `BUSYBOX`, `CHROMIUM`, `DOCKER_REGISTRY`, `HAPROXY`, `NGINX`, `PROMETHEUS`,
`PROMTOOL` and `SYSTEMD_ANALYZE` set other paths.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

DOWNLOADS = Path(__file__).resolve().parents[3] / "build" / "debian"


@dataclass(frozen=True)
class Program:
    """A program with its possible names and the packages that contain it."""

    variable: str
    names: tuple[str, ...]
    packages: tuple[str, ...]

    def found(self) -> str | None:
        """Return the path of the program; None if it is missing."""
        return os.environ.get(self.variable) or next(
            filter(None, map(shutil.which, self.names)), None
        )

    def path(self) -> str:
        """Return the path of the program. Raises `RuntimeError` if it is missing."""
        if (there := self.found()) is None:
            raise RuntimeError(self.what_to_do)
        return there

    @property
    def what_to_do(self) -> str:
        """The instruction for a machine without the program."""
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
SYSTEMD_ANALYZE = Program("SYSTEMD_ANALYZE", ("systemd-analyze",), ("systemd",))
BUSYBOX = Program("BUSYBOX", ("busybox",), ("busybox-static",))
DOCKER_REGISTRY = Program("DOCKER_REGISTRY", ("docker-registry",), ("docker-registry",))
NGINX = Program("NGINX", ("nginx", "/usr/sbin/nginx"), ("nginx-light",))
HAPROXY = Program("HAPROXY", ("haproxy", "/usr/sbin/haproxy"), ("haproxy",))
_KNOWN = (CHROMIUM, PROMETHEUS, SYSTEMD_ANALYZE, BUSYBOX, DOCKER_REGISTRY, NGINX, HAPROXY)
_PROGRAMS = {each.names[0]: each for each in _KNOWN}


def install(program: Program) -> None:
    """Install the packages with apt, if the user has the permission."""
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    for words in (
        ("update", "-qq"),
        ("install", "-qq", "--no-install-recommends", *program.packages),
    ):
        rights = _rights(program)
        command = [
            *(*rights, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y"),
            *("-o", f"Dir::Cache::archives={DOWNLOADS}", *words),
        ]
        done = subprocess.run(command, cwd=DOWNLOADS, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            sys.exit(program.what_to_do)


def _rights(program: Program) -> list[str]:
    """Return the command prefix that runs apt as root."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        return []
    if shutil.which("apt-get") and shutil.which("sudo"):
        return ["sudo", "--non-interactive"]
    sys.exit(program.what_to_do)


if __name__ == "__main__":
    for each in (_PROGRAMS[name] for name in sys.argv[1:]):
        if each.found() is None:
            install(each)
