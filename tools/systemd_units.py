"""Check the systemd units with systemd-analyze, and print how exposed each service is.

Usage: `python tools/systemd_units.py`. The units are checked in a directory with the units of this
machine, and with empty programs in the place of Toolbus. The exit code is 1 if systemd-analyze
reports anything.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.packages.debian import SYSTEMD_ANALYZE

UNITS = Path(__file__).resolve().parents[1] / "deploy" / "systemd"
SYSTEM = Path("usr/lib/systemd/system")  # of Debian and others
PROGRAMS = ("toolbus", "nats-server", "valkey-server")


def main() -> int:
    """Check every unit; return the exit code."""
    names = [path.name.removesuffix(".d") for path in UNITS.glob("*.service.d")]
    names += [path.name for path in UNITS.glob("*.service") if "@." not in path.name]
    with TemporaryDirectory() as name:
        root = prepared(Path(name))
        reported = analyzed("verify", root, "toolbus.target", *names).strip()
        sys.stdout.write(reported + "\n" if reported else f"{len(names)} units are valid.\n")
        scores = analyzed("security", root, "--offline=true", *sorted(names))
    for unit, score in re.findall(r"level for (\S+): (\S+)", scores):
        sys.stdout.write(f"{score}  {unit}\n")
    return 1 if reported else 0


def prepared(root: Path) -> Path:
    """Fill a directory with what the units refer to; return it."""
    shutil.copytree("/" / SYSTEM, root / SYSTEM, symlinks=True)
    shutil.copytree(UNITS, root / "etc" / "systemd" / "system")
    programs = root / "opt" / "toolbus" / "bin"
    programs.mkdir(parents=True)
    for each in PROGRAMS:
        (programs / each).touch(mode=0o755)
    return root


def analyzed(verb: str, root: Path, *words: str) -> str:
    """Return what systemd-analyze prints about the units below a directory."""
    command = [SYSTEMD_ANALYZE.path(), verb, f"--root={root}", "--no-pager", *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    failed = ended.returncode != 0 and not ended.stdout and not ended.stderr
    return f"exit code {ended.returncode}" if failed else ended.stdout + ended.stderr


if __name__ == "__main__":
    sys.exit(main())
