"""Writes a bundle: events as they were sealed, the checkpoints over them, and their check."""

import json
import zipfile
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import Any

from toolbus_common.privacy.person_key import TOKEN, Opened

Opening = Callable[[str], Opened | None]

READ_ME = """What is here

events.jsonl        every event of the log {origin}, as its producer wrote it, one on a line
checkpoints.jsonl  what was signed of the log while it grew (C2SP tlog-checkpoint)
opened.jsonl       what is sealed of people in the events, if it was asked for
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
    customer: str,
    stream: str,
    begins: Sealed | None,
    checkpoints: Iterable[Sealed],
    events: AsyncIterator[str],
    opened: Opening | None = None,
) -> int:
    """Write the bundle; how many events it has. What was there is replaced when all is written.

    With `opened` it tells what is sealed of people in the events, and the proof of each.
    """
    notes = [each.note for each in checkpoints]
    origin = notes[-1].split("\n", 1)[0]
    manifest = {"form": 1, "origin": origin, "customer": customer, "stream": stream, "begins": None}
    if begins is not None:
        manifest["begins"] = {"size": begins.size, "edge": begins.edge, "note": begins.note}
    half = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED) as bundle:
            bundle.writestr("manifest.json", json.dumps(manifest, indent=2))
            bundle.writestr("checkpoints.jsonl", _lines({"note": note} for note in notes))
            bundle.writestr("verify.py", Path(__file__).with_name("verify.py").read_text("utf-8"))
            bundle.writestr("README.txt", READ_ME.format(origin=origin, name=path.name))
            count = await _pour(events, bundle, opened, path.parent)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
    return count


async def _pour(
    events: AsyncIterator[str], bundle: zipfile.ZipFile, opened: Opening | None, beside: Path
) -> int:
    """The events, and after them what is sealed in them; how many events there are."""
    count = 0
    with TemporaryFile(dir=beside) as told:
        with bundle.open("events.jsonl", "w", force_zip64=True) as file:
            async for line in events:
                file.write(line.encode() + b"\n")
                count += 1
                if opened is not None:
                    told.writelines(_opened(line, opened))
        if opened is not None:
            told.seek(0)
            with bundle.open("opened.jsonl", "w", force_zip64=True) as file:
                copyfileobj(told, file)
    return count


def _opened(line: str, opened: Opening) -> Iterator[bytes]:
    """What is behind a line's tokens, one each; of those forgotten nothing is known."""
    for token in sorted({found[0] for found in TOKEN.finditer(line)}):
        if behind := opened(token):
            salt = b64encode(behind.salt).decode()
            told = {"token": token, "salt": salt, "text": behind.text}
            yield json.dumps(told).encode() + b"\n"


def _lines(rows: Iterable[Any]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)
