"""Clients of the official SDKs. They validate every list and every result."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx2
from mcp.client.client import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client

from harness.packages import npm

PACKAGES = {"v1": "@modelcontextprotocol/sdk@1.32.2", "v2": "@modelcontextprotocol/client@2.4.0"}
PROGRAM = "strict_client.mjs"
_SECONDS = 120.0  # timeout of a failed run


def installed(directory: Path) -> Path:
    """Copy the program into the directory where Node finds its packages. Return its path."""
    for package in PACKAGES.values():
        npm.installed(package, "package.json", directory)
    program = directory / PROGRAM
    shutil.copy(Path(__file__).with_name(PROGRAM), program)
    return program


def typescript(program: Path, **given: Any) -> dict[str, Any]:
    """Return the lists (by member) and the results of calls that a TypeScript SDK parsed."""
    done = subprocess.run(
        [str(npm.NODE), str(program), json.dumps(given)],
        check=True,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


async def python(endpoint: str, key: str, mode: str) -> dict[str, list[str]]:
    """Return what the Python SDK parsed of every list."""
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        transport = streamable_http_client(endpoint, http_client=http)
        async with SdkClient(transport, mode=mode) as client:
            return {
                "tools": [each.name for each in (await client.list_tools()).tools],
                "prompts": [each.name for each in (await client.list_prompts()).prompts],
                "resources": [str(each.uri) for each in (await client.list_resources()).resources],
                "resourceTemplates": [
                    each.uri_template
                    for each in (await client.list_resource_templates()).resource_templates
                ],
            }
