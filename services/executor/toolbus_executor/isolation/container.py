"""Command lines of container engines, for servers that are configured as containers."""

import os
import shutil
from collections.abc import Callable, Collection
from hashlib import sha256

from toolbus_common.config import Server
from toolbus_common.errors import UpstreamDeadError
from toolbus_executor.settings import Settings

ENGINES = ("docker", "podman")
# Variables of the executor's environment that the engine's command needs.
ENGINE_VARIABLES = (
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "CONTAINER_HOST",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
)
Which = Callable[[str], str | None]

# One shell does three steps: it removes the container of a killed executor, verifies the image's
# signature if a key is configured, and replaces itself with the engine.
_STEPS = """
"$1" rm --force "$2" >/dev/null 2>&1
if [ -n "$3" ] && ! cosign verify --key "$3" "$4" >/dev/null; then
  echo "isolation: image not verified" >&2
  exit 1
fi
engine="$1"; shift 4
exec "$engine" "$@"
""".strip()


def container_command(
    name: str, declared: Server, settings: Settings, which: Which = shutil.which
) -> list[str]:
    """Return the command line that runs a configured server in its container.

    Raises:
        UpstreamDeadError: no engine is installed, or cosign is required and not installed.

    """
    engine = next((found for each in ENGINES if (found := which(each))), None)
    if engine is None:
        raise UpstreamDeadError(
            "The server is configured as a container, but neither docker nor podman is installed "
            "on the executor's host; install one, or configure a command.",
            sent=False,
        )
    if settings.cosign_key and which("cosign") is None:
        raise UpstreamDeadError(
            "Image signatures must be verified (TOOLBUS_COSIGN_KEY), but cosign is not installed "
            "on the executor's host; install it.",
            sent=False,
        )
    container = _name(name, settings)
    image = declared.container.image if declared.container else ""
    steps = ["/bin/sh", "-c", _STEPS, "toolbus", engine, container, settings.cosign_key, image]
    return [*steps, *_run(container, declared)]


def denied_hint(declared: Server) -> str:
    """Return what to do if a program in a container was denied a file."""
    user = declared.container.user if declared.container else ""
    return f"it runs as {user}: set container.user if it needs another" if user else ""


def _run(container: str, declared: Server) -> list[str]:
    """Return the engine's arguments. They contain a network only for `network: any`."""
    assert declared.container is not None  # noqa: S101 - callers checked it
    limits = declared.limits
    words = ["run", "--rm", "--interactive", "--init", "--name", container]
    words += ["--cap-drop=ALL", "--security-opt=no-new-privileges", "--read-only", "--tmpfs=/tmp"]
    # The user has no entry in the image, and so no home directory.
    words += [f"--user={declared.container.user}", "--env=HOME=/tmp"]
    words += [f"--memory={limits.memory}m", f"--memory-swap={limits.memory}m"]
    words += [f"--pids-limit={limits.processes}", f"--ulimit=nofile={limits.files}"]
    words += [f"--cpus={limits.cpu:g}"] if limits.cpu is not None else []
    words += [f"--ulimit=cpu={limits.cpu_seconds}"] if limits.cpu_seconds else []
    # A container without a network still has a loopback interface.
    words += [] if declared.network == "any" else ["--network=none"]
    if declared.files is not None:
        words += _mounts(set(declared.files.read) - {"/"}, ":ro")
        words += _mounts(declared.files.write, "")
    # Only the name is an argument, because other users can see the arguments of a process.
    given = {*declared.env} | ({declared.oauth.env} if declared.oauth is not None else set())
    words += [word for name in sorted(given) for word in ("--env", name)]
    return [*words, declared.container.image, *declared.container.args]


def _mounts(paths: Collection[str], how: str) -> list[str]:
    found = sorted(map(os.path.expanduser, paths))
    return [f"--volume={path}:{path}{how}" for path in found]


def _name(server: str, settings: Settings) -> str:
    """Return the container's name. It is the same at every start, and differs per installation."""
    installation = sha256(str(settings.state_dir.resolve()).encode()).hexdigest()[:8]
    return f"toolbus-{installation}-{server}"
