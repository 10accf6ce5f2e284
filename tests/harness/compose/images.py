"""Build the image of Toolbus in both variants, and print their sizes.

`TOOLBUS_BASE` names another base image. Without a registry, a base can be imported from Debian's
packages: see CONTRIBUTING.md.
"""

import gzip
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SLIM, FULL = "toolbus-test:slim", "toolbus-test:full"
_CHUNK = 1 << 20


def build() -> None:
    """Build both variants from this directory of sources."""
    for image in (SLIM, FULL):
        variant = image.rpartition(":")[2]
        arguments = {"VARIANT": variant, "BASE": os.environ.get("TOOLBUS_BASE", "")}
        arguments["PIP_INDEX_URL"] = os.environ.get("PIP_INDEX_URL", "")
        given = [f"--build-arg={name}={value}" for name, value in arguments.items() if value]
        network = ["--network", "host"]  # of the build; an index may be reachable only so
        file = str(ROOT / "deploy" / "Dockerfile")
        docker("build", "--quiet", *network, *given, "--tag", image, "--file", file, str(ROOT))


def sizes() -> dict[str, tuple[int, int]]:
    """Return the sizes of each image in bytes, unpacked and compressed with gzip."""
    return {image: (_unpacked(image), _compressed(image)) for image in (SLIM, FULL)}


def docker(*words: str) -> str:
    """Run a command of Docker and return its output. Raises `CalledProcessError`."""
    command = ["docker", *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def _unpacked(image: str) -> int:
    return int(docker("image", "inspect", "--format", "{{.Size}}", image))


def _compressed(image: str) -> int:
    written = _Counter()
    with (
        subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved,
        gzip.GzipFile(fileobj=written, mode="wb", compresslevel=6) as packed,
    ):
        assert saved.stdout is not None
        while data := saved.stdout.read(_CHUNK):
            packed.write(data)
    return written.size


class _Counter:
    """A file that only counts what is written."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        pass
