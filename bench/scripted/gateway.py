"""Whole Toolbus over the company's servers, with keys that see 96, 251 and all 508 tools."""

import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from time import perf_counter
from typing import Any

from harness.clients.bus_operator import key
from harness.engines.engine import Engine
from harness.gateway.cluster import Cluster
from harness.waits import until_blocking
from scripted.agents import called, classic, coded
from scripted.catalogue import tools
from scripted.context import Conversation, definitions_cost
from scripted.mcp_client import Speaker, got
from scripted.published import tools_in
from scripted.tasks import Task, tasks
from toolbus_common.config import Configuration

BENCH = Path(__file__).resolve().parents[1]
SIZES = (96, 251, 508)


class Servers(Engine):
    """The process of all servers; `arguments` names a published list of tools instead."""

    arguments: tuple[str, ...] = ()

    def command(self) -> Sequence[str]:
        """Return the command line."""
        given = ["", str(self.port), *self.arguments]
        code = f"import sys; sys.path.insert(0, {str(BENCH)!r}); sys.argv = {given!r}; "
        return [
            sys.executable,
            "-c",
            code + "import runpy; runpy.run_module('scripted.upstream', run_name='__main__')",
        ]

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Stage:
    """The running gateway and servers."""

    cluster: Cluster
    servers: Servers

    def speaker(self, size: int, mode: str) -> Speaker:
        """Return a client that sees `size` tools in a mode."""
        return Speaker(f"{self.cluster.client('').endpoint}?mode={mode}", secret(size))

    def run(self, task: Task, size: int, mode: str, definitions: int) -> dict[str, Any]:
        """Run one task with one agent: tokens, duration, and whether the answer is correct."""
        got(f"{self.servers.url}/reset")
        talk = Conversation(definitions)
        began = perf_counter()
        with closing(self.speaker(size, mode)) as speaker:
            answer = (coded if mode == "code" else classic)(task, speaker, talk)
        seconds = perf_counter() - began
        true, effects = task.truth()
        done = got(f"{self.servers.url}/effects")
        return {
            "task": task.name,
            "hard": task.family.hard,
            "right": answer == true and sorted(map(repr, done)) == sorted(map(repr, effects)),
            "requests": talk.requests,
            "input_tokens": sum(talk.requests),
            "milliseconds": round(seconds * 1000, 1),
        }

    def definitions(self, size: int, mode: str) -> int:
        """Return the tokens that the tools listed in a mode add to every request."""
        return definitions_cost(self.listed(size, mode))

    def listed(self, size: int, mode: str) -> list[dict[str, Any]]:
        """Return the tools as an agent lists them."""
        with closing(self.speaker(size, mode)) as speaker:
            return speaker.tools()


def secret(size: int) -> str:
    """Return the key that sees `size` tools."""
    return f"tbk_sees{size}_a-secret-of-the-bench"


def names(size: int) -> list[str]:
    """Return `size` tool names: those the tasks need, then those of each server in turn."""
    needed = {path.replace(".", "__") for task in tasks() for path in (*task.used, *called(task))}
    listed = [[f"{server}__{tool['name']}" for tool in own] for server, own in tools().items()]
    others = [name for row in zip_longest(*listed) for name in row if name and name not in needed]
    return [*sorted(needed), *others][:size]


@contextmanager
def stage(
    sizes: Sequence[int] = SIZES,
    *,
    fused: bool = True,
    tools_file: Path | None = None,
    search_model: str = "",
) -> Iterator[Stage]:
    """Run everything until every key's tools are listed; a published list has one size."""
    listed = tools_in(tools_file) if tools_file else tools()
    with tempfile.TemporaryDirectory(prefix="toolbus-bench-") as directory:
        servers, cluster = (
            Servers(Path(directory) / "servers"),
            Cluster(Path(directory) / "cluster", TOOLBUS_SEARCH_MODEL=search_model),
        )
        servers.arguments = (str(tools_file),) if tools_file else ()
        seen = {size: ["*"] if tools_file else names(size) for size in sizes}
        try:
            servers.start()
            declared = configuration(servers.url, listed, seen)
            cluster.start(declared, fused=fused, additional=("codemode",))
            made = Stage(cluster, servers)
            for size in sizes:
                client = cluster.client(secret(size))
                until_blocking(lambda c=client, n=size: len(c.tools()) == n, "the tools", 60)  # type: ignore[misc]
            until_blocking(lambda: len(made.listed(sizes[-1], "code")) == 5, "code mode", 60)
            yield made
        finally:
            cluster.stop()
            servers.kill()


def configuration(url: str, servers: Iterable[str], seen: dict[int, list[str]]) -> Configuration:
    """Return the servers, and a key for each size."""
    return Configuration.model_validate(
        {
            "servers": {server: {"url": f"{url}/{server}/mcp"} for server in servers},
            "keys": {f"sees{size}": key(secret(size), *may) for size, may in seen.items()},
        }
    )
