"""Servers in containers: what an engine is asked for, made of a declaration."""

import os
import shutil
from collections.abc import Callable, Collection
from hashlib import sha256

from toolbus_common.config import Server
from toolbus_common.errors import UpstreamDeadError
from toolbus_executor.settings import Settings

ENGINES = ("docker", "podman")
# What the engine's own command needs of the executor's environment, to find its engine.
OF_ENGINES = (
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "CONTAINER_HOST",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
)
Which = Callable[[str], str | None]

# One shell for three steps: whatever an executor that was killed left behind is removed, the
# image's signature is verified where a key is configured, and the engine takes our place.
_STEPS = """
"$1" rm --force "$2" >/dev/null 2>&1
if [ -n "$3" ] && ! cosign verify --key "$3" "$4" >/dev/null; then
  echo "isolation: image not verified" >&2
  exit 1
fi
engine="$1"; shift 4
exec "$engine" "$@"
""".strip()


def contained(
    name: str, declared: Server, settings: Settings, which: Which = shutil.which
) -> list[str]:
    """The command that runs a declared server in a container of its own.

    Raises:
        UpstreamDeadError: there is no engine, or nothing to verify signatures with.

    """
    engine = next((found for each in ENGINES if (found := which(each))), None)
    if engine is None:
        raise UpstreamDeadError(
            "It is declared as a container, and there is neither docker nor podman where the "
            "executor runs; install one, or declare a command.",
            sent=False,
        )
    if settings.cosign_key and which("cosign") is None:
        raise UpstreamDeadError(
            "Signatures of images are to be verified (TOOLBUS_COSIGN_KEY), and there is no cosign "
            "where the executor runs; install it.",
            sent=False,
        )
    container = _name(name, settings)
    image = declared.container.image if declared.container else ""
    steps = ["/bin/sh", "-c", _STEPS, "toolbus", engine, container, settings.cosign_key, image]
    return [*steps, *_run(container, declared)]


def _run(container: str, declared: Server) -> list[str]:
    """What the engine is told: nothing of this machine but what is declared."""
    assert declared.container is not None  # noqa: S101 - who is contained has declared it
    limits = declared.limits
    words = ["run", "--rm", "--interactive", "--init", "--name", container]
    words += ["--cap-drop=ALL", "--security-opt=no-new-privileges", "--read-only", "--tmpfs=/tmp"]
    words += [f"--memory={limits.memory}m", f"--memory-swap={limits.memory}m"]
    words += [f"--pids-limit={limits.processes}", f"--ulimit=nofile={limits.files}"]
    words += [f"--cpus={limits.cpu:g}"] if limits.cpu is not None else []
    words += [f"--ulimit=cpu={limits.cpu_seconds}"] if limits.cpu_seconds else []
    # Of its own, it has a loopback in either case.
    words += [] if declared.network == "any" else ["--network=none"]
    if declared.files is not None:
        words += _mounts(set(declared.files.read) - {"/"}, ":ro")
        words += _mounts(declared.files.write, "")
    # By name only: what they are is not to be read among the words of a process.
    given = {*declared.env} | ({declared.oauth.env} if declared.oauth is not None else set())
    words += [word for name in sorted(given) for word in ("--env", name)]
    return [*words, declared.container.image, *declared.container.args]


def _mounts(paths: Collection[str], how: str) -> list[str]:
    found = sorted(map(os.path.expanduser, paths))
    return [f"--volume={path}:{path}{how}" for path in found]


def _name(server: str, settings: Settings) -> str:
    """The same at every start, and another for each installation of a machine."""
    installation = sha256(str(settings.state_dir.resolve()).encode()).hexdigest()[:8]
    return f"toolbus-{installation}-{server}"
