"""Two versions of Toolbus: the present one, and an earlier commit in an environment of its own."""

import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from harness.engines.engine import installed

ROOT = Path(__file__).parents[3]
CACHE = ROOT / "build" / "upgrade"
# The last commit before the work on containers, backups and upgrades (issue 22).
EARLIER = os.environ.get("TOOLBUS_UPGRADE_FROM") or "4cc79997"


@dataclass(frozen=True)
class Version:
    """An installed version, by its command `toolbus`."""

    name: str
    command: str

    @property
    def packages(self) -> str:
        """The file from which its processes import Toolbus."""
        python = str(Path(self.command).with_name("python"))
        shown = "import toolbus_common; print(toolbus_common.__file__)"
        return subprocess.check_output([python, "-c", shown], text=True).strip()

    def run(self, *words: str, **environment: str) -> str:
        """Run a command, and return its output. Raises `RuntimeError` with its error."""
        done = subprocess.run(
            [self.command, *words],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: toolbus {' '.join(words)}: {done.stderr}")
        return done.stdout


def present() -> Version:
    """Return the version of this working tree."""
    return Version("present", installed("toolbus"))


def earlier(commit: str = EARLIER) -> Version:
    """Return the version of a commit, built as a wheel at the first use."""
    directory = CACHE / _git("rev-parse", "--verify", f"{commit}^{{commit}}").decode().strip()
    command = directory / "bin" / "toolbus"
    if not (directory / "installed").exists():
        shutil.rmtree(directory, ignore_errors=True)
        _install(commit, directory)
        (directory / "installed").touch()
    return Version(commit, str(command))


def _install(commit: str, directory: Path) -> None:
    source = directory / "source"
    with tarfile.open(fileobj=BytesIO(_git("archive", "--format=tar", commit))) as tar:
        tar.extractall(source, filter="data")
    python = str(directory / "bin" / "python")
    _run(sys.executable, "-m", "venv", str(directory))
    _run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(directory), str(source))
    (wheel,) = directory.glob("toolbus-*.whl")
    _run(python, "-m", "pip", "install", "--quiet", str(wheel))
    shutil.rmtree(source)


def _git(*words: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"git {' '.join(words)}: {done.stderr.decode()} A shallow clone lacks earlier commits: "
            "run 'git fetch --unshallow'."
        )
    return done.stdout


def _run(*words: str) -> None:
    subprocess.run(words, check=True)
