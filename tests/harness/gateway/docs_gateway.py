"""Gateway for the samples of the documentation, with the demo's servers and a shell per page."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from harness.clients.mcp_client import Answer, Client
from harness.engines.engine import Engine, die_with_parent, installed, own_port
from harness.gateway.launched_gateway import Launched
from harness.samples.page_samples import Sample, merged
from harness.waits import until_blocking

SECONDS = 60.0  # timeout of one sample
SECRETS = {"demo": "tbk_demo_the-secret-of-the-docs", "root": "tbk_root_the-secret-of-the-docs"}
ADMIN = "tba_docs_the-secret-of-an-admin"
DOCUMENTED = "127.0.0.1:8080"
DOCUMENTED_PORT = "8090"  # port of a program that a page starts
STATE, PLACE = ".exported", ".directory"


class Notes(Engine):
    """The demo's HTTP server."""

    def command(self) -> list[str]:
        """Return the command line."""
        return [sys.executable, "-P", "-m", "toolbus_demo.notes", "--port", str(self.port)]


class DocsGateway:
    """`toolbus up` with the demo's configuration. Samples can extend the configuration."""

    def __init__(self, directory: Path) -> None:
        self._notes = Notes(directory / "notes")
        self.launched = Launched(directory)
        clock = [sys.executable, "-P", "-m", "toolbus_demo.clock"]
        url = f"http://127.0.0.1:{self._notes.port}/mcp"
        granted = ["clock__*", "notes__add", "notes__list"]
        self.base: dict[str, Any] = {
            "servers": {"clock": {"command": clock, "sessions": "shared"}, "notes": {"url": url}},
            "keys": {
                "demo": {"secret": SECRETS["demo"], "tools": granted},
                "root": {"secret": SECRETS["root"], "tools": ["*"]},
            },
            "admins": {"docs": {"role": "admin", "secret": ADMIN}},
            "prices": {"notes__add": 0.01, "*": 0},
        }

    def start(self) -> None:
        """Start the gateway, and return when the demo's tools are listed."""
        self._notes.start()
        self.launched.configure(self.base)
        self.launched.start()
        self._until_listed(self.base["servers"])

    def stop(self) -> None:
        """Stop the gateway and the demo's server."""
        self.launched.stop()
        self._notes.kill()

    def apply(self, document: dict[str, Any]) -> dict[str, str]:
        """Apply the demo's configuration extended with a document. Return the new secrets."""
        file = self.launched.directory / "applied.yaml"
        file.write_text(yaml.safe_dump(merged(self.base, document), sort_keys=False))
        done = self.launched.toolbus("apply", "-f", str(file), "--yes", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        self._until_listed(document.get("servers", {}))
        secrets: dict[str, str] = json.loads(done.stdout)["secrets"]
        return secrets

    def program(self, code: str, language: str) -> Answer:
        """Run a program in code mode with the demo's key."""
        client = Client(f"{self.launched.ready['endpoint']}?mode=code", SECRETS["demo"])
        return client.call("executeToolCode", {"code": code, "language": language or "starlark"})

    def _until_listed(self, servers: dict[str, Any]) -> None:
        client = self.launched.client(SECRETS["root"])

        def listed() -> bool:
            answer = client.request("tools/list").json.get("result", {"tools": []})
            found = {tool["name"].partition("__")[0] for tool in answer["tools"]}
            return {*servers} <= found

        until_blocking(listed, f"the tools of {', '.join(servers)}")


class Page:
    """The samples of one page. They share a directory, exported variables and background jobs.

    Shells look in `programs` first.
    """

    def __init__(self, gateway: DocsGateway, directory: Path, *programs: Path) -> None:
        self._gateway = gateway
        self._directory = directory
        self._programs = [*programs, Path(installed("toolbus")).parent]
        self._secrets = dict(SECRETS)
        self._applied: dict[str, Any] = {}
        self._groups: list[int] = []
        self._port = own_port()
        (directory / PLACE).write_text(str(directory))

    def check(self, sample: Sample) -> None:
        """Run one sample, and check its output against its marker."""
        sample = replace(sample, text=sample.text.replace(DOCUMENTED_PORT, str(self._port)))
        directives = sample.directives
        if "apply" in directives:
            self._applied = merged(self._applied, sample.configuration)
            self._secrets |= self._gateway.apply(self._located(self._applied))
        elif "until prints" in directives:
            wanted = directives["until prints"]
            until_blocking(lambda: wanted in self._output(sample)[1], f"{wanted!r} at {sample}")
        else:
            status, output = self._output(sample)
            assert status == 0 or "may fail" in directives, f"{sample}: {output}"
            assert directives.get("prints", "") in output, f"{sample}: {output}"

    def close(self) -> None:
        """Stop the background jobs of the samples, and revert the changes of the samples."""
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        if self._applied:
            self._gateway.apply({})

    def _located(self, document: dict[str, Any]) -> dict[str, Any]:
        """Make a server's relative `cwd` absolute.

        Readers run `toolbus up` where they write files.
        """
        place = Path((self._directory / PLACE).read_text().strip())
        servers = {
            name: {**server, "cwd": str(place / server["cwd"])}
            for name, server in document.get("servers", {}).items()
            if "cwd" in server
        }
        return merged(document, {"servers": servers})

    def _output(self, sample: Sample) -> tuple[int, str]:
        text = self._substituted(sample.text)
        if "run program" in sample.directives:
            answer = self._gateway.program(text, sample.directives["run program"])
            failed = answer.code or answer.json["result"].get("isError")
            return int(bool(failed)), answer.body.decode()
        if sample.language == "python":
            (self._directory / "sample.py").write_text(text)
            text = f"{sys.executable} sample.py"
        return self._run(text)

    def _run(self, text: str) -> tuple[int, str]:
        """Run a shell sample. The next sample has its exports and its directory."""
        output = self._directory / ".output"
        before = f'[ ! -f "{STATE}" ] || . "./{STATE}"; cd "$(cat {PLACE})"; set -a\n'
        state, place = self._directory / STATE, self._directory / PLACE
        after = f"trap 'declare -px > {state}; pwd > {place}' EXIT\n"
        output.write_bytes(b"")
        with output.open("ab") as file:  # a forked command opens it again
            shell = subprocess.Popen(
                ["bash", "-e", "-o", "pipefail", "-c", before + after + text],
                cwd=self._directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )
            self._groups.append(shell.pid)
            status = shell.wait(SECONDS)
        return status, output.read_text()

    def _environment(self) -> dict[str, str]:
        endpoint = self._gateway.launched.ready["endpoint"]
        keys = {f"KEY_{name}".replace("-", "_"): each for name, each in self._secrets.items()}
        return {
            **self._gateway.launched.environment,
            **keys,
            "PATH": os.pathsep.join([*map(str, self._programs), os.environ["PATH"]]),
            "HOME": str(self._directory),
            "TOOLBUS_STATE_DIR": str(self._gateway.launched.state_dir),
            "KEY": SECRETS["demo"],
            "TOOLBUS_KEY": SECRETS["demo"],
            "ADMIN": ADMIN,
            "API": endpoint.removesuffix("/mcp") + "/api",
        }

    def _substituted(self, text: str) -> str:
        address = urlsplit(self._gateway.launched.ready["endpoint"]).netloc
        text = text.replace(DOCUMENTED, address).replace(".venv/bin/toolbus", "toolbus")
        text = re.sub(r"tba_\w*…", ADMIN, text)

        def secret(match: re.Match[str]) -> str:
            return self._secrets[match[1] or "demo"]

        return re.sub(r"tbk_(?:([A-Za-z0-9-]+)_)?…", secret, text)
