"""Run a container of a rendered chart as a process, with its arguments, environment and files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.engines.engine import die_with_parent, own_port

STATE = "/var/lib/toolbus"
Secrets = dict[str, dict[str, Path]]


class RenderedContainer:
    """The only container of a Pod: `STATE` is a directory, and each port is another free one."""

    def __init__(self, pod: dict[str, Any], secrets: Secrets, directory: Path) -> None:
        (self.container,) = pod["containers"]
        self.root = directory / self.container["name"]
        self.log = directory / f"{self.container['name']}.log"
        self.ports = {each["name"]: own_port() for each in self.container.get("ports", [])}
        self._process: subprocess.Popen[bytes] | None = None
        volumes = {each["name"]: each for each in pod["volumes"]}
        for mount in self.container["volumeMounts"]:
            if mount["mountPath"].startswith(STATE):
                _fill(self._place(mount["mountPath"]), volumes.get(mount["name"], {}), secrets)

    def _place(self, path: str) -> Path:
        return Path(path.replace(STATE, str(self.root)))

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the container, with the directory and ports of this process."""
        numbers = {
            each["containerPort"]: self.ports[each["name"]]
            for each in self.container.get("ports", [])
        }
        found = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        for each in self.container["env"]:
            value = each["value"].replace(STATE, str(self.root))
            for number, port in numbers.items():
                if value in (str(number), f"0.0.0.0:{number}"):
                    value = value.replace("0.0.0.0", "127.0.0.1").replace(str(number), str(port))
            found[each["name"]] = value
        return found

    def start(self) -> None:
        """Start the process with the arguments of the container."""
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                ["toolbus", *self.container["args"]],
                cwd=self.root,
                env=self.environment,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )

    def wait(self) -> int:
        """Wait for the end of the process; return its exit code."""
        assert self._process is not None
        return self._process.wait(60)

    def stop(self) -> int:
        """Send SIGTERM and wait for the end; return the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self.wait()

    def probe(self, name: str) -> str:
        """Return the URL of a probe."""
        request = self.container[name]["httpGet"]
        return f"http://127.0.0.1:{self.ports[request['port']]}{request['path']}"

    def mounted_keys(self) -> dict[str, bytes]:
        """Return the files of the Secret in their present state, by path."""
        (mount,) = [each for each in self.container["volumeMounts"] if each["name"] == "keys"]
        directory = self._place(mount["mountPath"])
        return {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in directory.rglob("*")
            if path.is_file()
        }


def _fill(directory: Path, volume: dict[str, Any], secrets: Secrets) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if "secret" not in volume:
        return
    for item in volume["secret"]["items"]:
        target = directory / item["path"]
        target.parent.mkdir(exist_ok=True)
        shutil.copy(secrets[volume["secret"]["secretName"]][item["key"]], target)
        target.chmod(volume["secret"]["defaultMode"])
    directory.chmod(0o550)
