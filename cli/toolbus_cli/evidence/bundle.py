"""Writes a bundle: facts as they were sealed, the checkpoints over them, and their check."""

import json
import zipfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READ_ME = """What is here

facts.jsonl        every fact of the log {origin}, as its producer wrote it, one on a line
checkpoints.jsonl  what was signed of the log while it grew (C2SP tlog-checkpoint)
manifest.json      which log this is, and where in it the bundle begins
verify.py          checks the rest: python3 verify.py {name} --key KEY

Take verify.py and the key from where you trust them rather than from here: from Toolbus's
repository, and from whoever gave you the key when the log began.
"""


@dataclass(frozen=True, slots=True)
class Sealed:
    """One checkpoint as the table has it; `to` is the last message of the stream it covers."""

    size: int
    to: int
    edge: tuple[str, ...]
    note: str


async def write(
    path: Path,
    *,
    scope: str,
    stream: str,
    begins: Sealed | None,
    checkpoints: Iterable[Sealed],
    facts: AsyncIterator[str],
) -> int:
    """Write the bundle; how many facts it has. What was there is replaced when all is written."""
    notes = [each.note for each in checkpoints]
    origin = notes[-1].split("\n", 1)[0]
    manifest = {"form": 1, "origin": origin, "scope": scope, "stream": stream, "begins": None}
    if begins is not None:
        manifest["begins"] = {"size": begins.size, "edge": begins.edge, "note": begins.note}
    half = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED) as bundle:
            bundle.writestr("manifest.json", json.dumps(manifest, indent=2))
            bundle.writestr("checkpoints.jsonl", _lines({"note": note} for note in notes))
            bundle.writestr("verify.py", Path(__file__).with_name("verify.py").read_text("utf-8"))
            bundle.writestr("README.txt", READ_ME.format(origin=origin, name=path.name))
            count = 0
            with bundle.open("facts.jsonl", "w", force_zip64=True) as file:
                async for line in facts:
                    file.write(line.encode() + b"\n")
                    count += 1
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
    return count


def _lines(rows: Iterable[Any]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)
