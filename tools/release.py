"""Build the wheel and the sdist reproducibly, and a bundle that installs without an index.

Usage: `python tools/release.py build` writes the wheel, the sdist and SHA256SUMS to dist/;
`python tools/release.py bundle` also writes a bundle with the wheels of all dependencies for this
machine's Python and platform, installs it in an empty home directory, and writes the list of
installed components (CycloneDX).

Only what is committed is built: the sources are `git archive HEAD`, which contains the commit.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
UMASKS = (0o022, 0o077)  # of the two builds, which must be equal
INSTALL = """\
{name}: Toolbus and all its dependencies as wheels, for Python {python} on {platform}.

    python{python} -m venv /opt/toolbus
    /opt/toolbus/bin/pip install --no-index --find-links wheels --require-hashes -r requirements.txt

Then: /opt/toolbus/bin/toolbus version
"""


def main(words: list[str]) -> int:
    """Run one of the two commands; return the exit code."""
    if words not in (["build"], ["bundle"]):
        sys.stderr.write("usage: python tools/release.py build|bundle\n")
        return 2
    if git("status", "--porcelain").strip():
        sys.stderr.write("There are changes that are not committed; they are not in the release.\n")
    files = built_twice()
    if words == ["bundle"]:
        files += bundled(next(path for path in files if path.suffix == ".whl"))
    sums = "".join(f"{sha256(path)}  {path.name}\n" for path in files)
    (DIST / "SHA256SUMS").write_text(sums)
    sys.stdout.write(sums)
    return 0


def built_twice() -> list[Path]:
    """Build the wheel and the sdist in two directories; raise `SystemExit` if they differ."""
    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        builds = [
            built(Path(place), umask) for place, umask in zip((first, second), UMASKS, strict=True)
        ]
        if builds[0] != builds[1]:
            sys.exit(f"Two builds differ, so they are not reproducible: {builds}")
        DIST.mkdir(exist_ok=True)
        for name in builds[0]:
            (DIST / name).write_bytes((Path(first) / "dist" / name).read_bytes())
    return [DIST / name for name in builds[0]]


def built(place: Path, umask: int) -> dict[str, str]:
    """Build from the committed sources; return the digest of each file by its name."""
    source = place / "source"
    with tarfile.open(fileobj=io.BytesIO(git_bytes("archive", "HEAD"))) as archive:
        archive.extractall(source, filter="data")
    run(
        sys.executable, "-m", "hatchling", "build", "-d", str(place / "dist"),
        cwd=source, umask=umask, env=os.environ | {"SOURCE_DATE_EPOCH": epoch()},
    )  # fmt: skip
    return {path.name: sha256(path) for path in sorted((place / "dist").iterdir())}


def bundled(wheel: Path) -> list[Path]:
    """Write the bundle and its list of components; raise `SystemExit` if it does not install."""
    python, platform = sysconfig.get_python_version(), sysconfig.get_platform()
    version = parse_wheel_filename(wheel.name)[1]
    name = f"toolbus-{version}-py{python}-{platform}"
    with TemporaryDirectory() as scratch:
        place = Path(scratch) / name
        run(sys.executable, "-m", "pip", "wheel", "-q", "-w", str(place / "wheels"), str(wheel))
        (place / "requirements.txt").write_text(requirements(place / "wheels"))
        text = INSTALL.format(name=name, python=python, platform=platform)
        (place / "INSTALL.txt").write_text(text)
        bundle = packed(place, DIST / f"{name}.tar")
    components = DIST / f"{name}.cdx.json"
    with TemporaryDirectory() as scratch:
        proved(bundle, Path(scratch), components)
    return [bundle, components]


def requirements(wheels: Path) -> str:
    """Return a line with version and digest for each wheel."""
    lines = []
    for path in sorted(wheels.iterdir()):
        project, version, _, _ = parse_wheel_filename(path.name)
        lines.append(f"{project}=={version} --hash=sha256:{sha256(path)}\n")
    return "".join(lines)


def packed(place: Path, bundle: Path) -> Path:
    """Write a directory as an archive that depends on its content only; return the archive."""

    def neutral(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime, entry.mode = int(epoch()), 0o755 if entry.isdir() else 0o644
        return entry

    with tarfile.open(bundle, "w") as archive:
        for path in [place, *sorted(place.rglob("*"))]:
            inside = path.relative_to(place.parent).as_posix()
            archive.add(path, inside, recursive=False, filter=neutral)
    return bundle


def proved(bundle: Path, scratch: Path, components: Path) -> None:
    """Install a bundle as its INSTALL.txt says, without index and home; list the components."""
    with tarfile.open(bundle) as archive:
        archive.extractall(scratch, filter="data")
    (place,) = scratch.iterdir()
    home, environment = scratch / "home", scratch / "environment"
    home.mkdir()
    alone = {"HOME": str(home), "PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": os.devnull}
    run(sys.executable, "-m", "venv", str(environment), env=alone)
    run(
        str(environment / "bin" / "pip"), "install", "-q", "--no-index", "--find-links", "wheels",
        "--require-hashes", "-r", "requirements.txt", cwd=place, env=alone,
    )  # fmt: skip
    shown = run(str(environment / "bin" / "toolbus"), "version", "--json", cwd=home, env=alone)
    about = json.loads(shown)
    if about["commit"] != git("rev-parse", "HEAD").strip():
        sys.exit(f"The installed Toolbus shows another commit: {about['commit']}")
    if missing := [name for name, each in about["engines"].items() if not each["version"]]:
        sys.exit(f"The installed Toolbus lacks engines: {', '.join(missing)}")
    run(str(environment / "bin" / "pip"), "uninstall", "-q", "-y", "pip", "setuptools", env=alone)
    run(
        sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible",
        "--pyproject", str(ROOT / "pyproject.toml"), "-o", str(components),
        str(environment / "bin" / "python"), env=os.environ | {"SOURCE_DATE_EPOCH": epoch()},
    )  # fmt: skip


def epoch() -> str:
    """Return the time of the commit, which is the time of every built file."""
    return os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct").strip()


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git(*words: str) -> str:
    """Return the output of git."""
    return git_bytes(*words).decode()


def git_bytes(*words: str) -> bytes:
    """Return the output of git, unchanged."""
    command = ["git", *words]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout  # noqa: S603


def run(*words: str, cwd: Path = ROOT, umask: int = -1, env: dict[str, str] | None = None) -> str:
    """Run a program and return its output; raise `SystemExit` with its errors if it fails."""
    ended = subprocess.run(  # noqa: S603 - tools of this release
        words, cwd=cwd, umask=umask, env=env, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{ended.stdout}{ended.stderr}")
    return ended.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
