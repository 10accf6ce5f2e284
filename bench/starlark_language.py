"""Conformance of the sandbox's Starlark engine to the language's public test files.

Take the files from github.com/bazelbuild/starlark, directory test_suite/testdata, and name the
directory: `make starlark SUITE=DIRECTORY`. Each chunk of a file is its own program; `### text` on a
line marks an expected error. The files are not part of this repository.
"""

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from figures import console, keep
from toolbus_codemode.sandbox.program import Limits, Program, ToolCall, ToolOutcome
from toolbus_codemode.sandbox.sandbox import Sandbox, SandboxSettings

EXPECTED = re.compile(r"(.*?) *### *((go|java|rust):)? *(.*)")
IMPLEMENTATION = "rust"
MAX_FAILED = 0.003
PRELUDE = """
def assert_eq(x, y):
    if x != y:
        print("%r != %r" % (x, y))

def assert_ne(x, y):
    if x == y:
        print("%r == %r" % (x, y))

def assert_(cond, msg = "assertion failed"):
    if not cond:
        print(msg)
"""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One program of a file, and its expected error, if any."""

    place: str
    source: str
    expected: str | None


def chunks(path: Path) -> Iterator[Chunk]:
    """Return the programs of one file."""
    line = 1
    for text in path.read_text().split("\n---\n"):
        lines, expected = [], None
        for code in text.split("\n"):
            marked = EXPECTED.fullmatch(code)
            lines.append(marked[1] if marked else code)
            if marked and marked[3] in {None, IMPLEMENTATION}:
                expected = marked[4]
        place = f"{path.parent.name}/{path.name}:{line}"
        yield Chunk(place, PRELUDE + "\n".join(lines), expected)
        line += len(lines) + 1


async def no_tools(_call: ToolCall) -> ToolOutcome:
    """Fail: these programs make no calls."""
    return ToolOutcome()


async def deviation(sandbox: Sandbox, chunk: Chunk) -> str | None:
    """Return how a chunk deviates, if it does. An error's wording is the engine's own."""
    program = Program(chunk.source + "\nresult = True", limits=Limits(deadline=10.0, cpu=10))
    ended = await sandbox.run(program, no_tools)
    if chunk.expected is not None:
        return None if ended.error else f"no error, expected: {chunk.expected}"
    if ended.error:
        return f"{ended.error.name}: {ended.error.message}"
    return ended.prints.strip().split("\n")[0] or None


async def main(every: list[Chunk]) -> int:
    """Run every chunk of every file; return 0 if few enough deviate."""
    sandbox = Sandbox(SandboxSettings(engines=("starlark",)))
    await sandbox.start()
    deviations = {chunk.place: await deviation(sandbox, chunk) for chunk in every}
    await sandbox.close()
    failed = {place: why for place, why in deviations.items() if why}
    console.print_json(json.dumps(failed))
    console.print(f"{len(every) - len(failed)} of {len(every)} chunks behave as specified")
    keep("starlark", {"chunks": len(every), "share": 1 - len(failed) / len(every)})
    return int(len(failed) > MAX_FAILED * len(every))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    files = sorted(parser.parse_args().directory.rglob("*.star"))
    sys.exit(asyncio.run(main([chunk for path in files for chunk in chunks(path)])))
