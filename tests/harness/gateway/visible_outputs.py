"""All outputs of a gateway that a person or a program can read, as bytes."""

import gzip
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.audit.written_files import files_in
from harness.clients.admin_client import at
from harness.clients.admin_operations import admin_operations
from harness.clients.mcp_client import Client
from harness.gateway.canary_gateway import CanaryGateway
from toolbus_common.contracts.events.base import EVERY_EVENT
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.stream_reader import read_from
from toolbus_common.nats.topology import EVENTS

Outputs = dict[str, list[bytes]]


def current_outputs(planted: CanaryGateway) -> Outputs:
    """Return the current outputs by place."""
    launched, directory = planted.launched, planted.launched.directory
    commands = {
        "status": ("status", "--json"),
        "report": ("audit", "report", "--html", str(directory / "report.html")),
        "status as shown": ("status",),
        "bundle": ("audit", "export", str(directory / "bundle.zip")),
        "rival's bundle": ("audit", "export", str(directory / "rival.zip"), "--customer", "rival"),
    }
    with ThreadPoolExecutor(len(commands)) as pool:
        done = list(pool.map(lambda words: launched.toolbus(*words), commands.values()))
    assert [each.returncode for each in done] == [0] * len(done), done
    message = {
        name: [each.stdout.encode(), each.stderr.encode()]
        for name, each in zip(commands, done, strict=True)
    }
    message["report"].append((directory / "report.html").read_bytes())
    message["bundle"] += _unzipped(directory / "bundle.zip")
    message["rival's bundle"] += _unzipped(directory / "rival.zip")
    administrator = at(launched, planted.secrets["operator"])
    declared = administrator.request("GET", "/v1/configuration")
    listeners = sorted(set(launched.ready["ops"].values()))
    return (
        message
        | delayed_outputs(planted)
        | {
            "logs": [launched.logs().encode()],
            "stream": launched.on_the_bus(_stream),
            "traces": list(planted.collector.bodies),
            "metrics": [Client(url).get(f"{url}/metrics").body for url in listeners],
            "configuration": [declared.body],
            "administration": [
                administrator.request("GET", operation.path.removeprefix("/api")).body
                for operation in admin_operations()
                if operation.method == "GET" and "{" not in operation.path
            ],
            "disk": [content for _, content in files_in(launched.state_dir)],
        }
    )


def delayed_outputs(planted: CanaryGateway) -> Outputs:
    """Return the outputs in which events appear with a delay."""
    received = planted.receiver.received
    return {
        "table": [repr(planted.launched.rows("SELECT * FROM events")).encode()],
        "files": [
            gzip.decompress(content)
            for path, content in files_in(planted.exports)
            if path.suffix == ".gz"
        ],
        "sink": [each.body for each in received if each.path == "/sink"],
        "webhooks": [each.body for each in received if each.path == "/hook"],
    }


async def _stream(bus: Bus) -> list[bytes]:
    return [each.data for each in await read_from(bus.client, EVENTS, 1, EVERY_EVENT, 10_000)]


def _unzipped(path: Path) -> list[bytes]:
    with zipfile.ZipFile(path) as bundle:
        return [bundle.read(name) for name in bundle.namelist()]
