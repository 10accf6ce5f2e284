"""Virtual environment with the wheel of Toolbus and only the packages that the wheel requires.

The packages are links to the packages installed here, so nothing is downloaded. The import of a
package that only tests need fails, as it would for a user.
"""

import os
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
NAME = "toolbus"


def create(at: Path) -> Path:
    """Build the wheel, and install it into a new environment. Return the directory of commands."""
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(at / "dist"), versions=["standard"])
    home = at / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    commands = home / "bin"
    toolbus = commands / NAME
    toolbus.write_text(
        f"#!{commands / 'python'}\nfrom toolbus_cli.main import main\nraise SystemExit(main())\n"
    )
    toolbus.chmod(0o755)
    for each in required():
        _link(each, site)
    return commands


def required() -> list[Distribution]:
    """Return the installed distributions that the wheel requires, directly or indirectly."""
    found: dict[tuple[str, str], Distribution] = {}
    waiting = [(NAME, "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        each = found[name, extra] = distribution(name)
        for text in each.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(requirement.name, more) for more in ("", *requirement.extras)]
    return list({each.name: each for each in found.values() if each.name != NAME}.values())


def _link(each: Distribution, site: Path) -> None:
    """Create links to all files of a distribution, and to compiled modules beside it."""
    for file in each.files or ():
        source, target = Path(str(file.locate())), Path(os.path.normpath(site / file))
        if "__pycache__" in file.parts or not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to(source)
        compiled = target.parent / "__pycache__"
        if source.suffix == ".py" and not compiled.exists():
            (source.parent / "__pycache__").mkdir(exist_ok=True)
            compiled.symlink_to(source.parent / "__pycache__")
