"""Writer of bundles, which contain signed events, their checkpoints and the verifier."""

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

READ_ME = """Contents of this bundle

events.jsonl       events of the log {origin}, one per line, as their producers wrote them
checkpoints.jsonl  signed checkpoints of the log (C2SP tlog-checkpoint)
opened.jsonl       decrypted personal data of the events, if it was requested
manifest.json      the name of the log, and the position in it at which the bundle starts
verify.py          the verifier: python3 verify.py {name} --key KEY

Take verify.py and the key from a source that you trust rather than from this bundle: the verifier
from the Toolbus repository, and the key from the person who gave it to you at the log's start.
"""


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A row of the table `checkpoints`.

    Attributes:
        size: The number of events in the tree.
        to: The sequence number of the last stream message in the tree.
        edge: The root hashes of the tree's perfect subtrees, from which the tree can be extended.
        note: The signed text (C2SP tlog-checkpoint).

    """

    size: int
    to: int
    edge: tuple[str, ...]
    note: str


async def write(
    path: Path,
    *,
    customer: str,
    stream: str,
    start: StoredCheckpoint | None,
    checkpoints: Iterable[StoredCheckpoint],
    events: AsyncIterator[str],
    opened: Opening | None = None,
) -> int:
    """Write the bundle and return the number of events; an existing file is replaced at the end.

    With `opened`, the bundle includes decrypted personal data, each value with its proof.
    """
    notes = [each.note for each in checkpoints]
    origin = notes[-1].split("\n", 1)[0]
    manifest = {"form": 1, "origin": origin, "customer": customer, "stream": stream, "start": None}
    if start is not None:
        manifest["start"] = {"size": start.size, "edge": start.edge, "note": start.note}
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
    events: AsyncIterator[str], bundle: zipfile.ZipFile, opened: Opening | None, directory: Path
) -> int:
    """Write the events, then the decrypted personal data. Return the number of events."""
    count = 0
    with TemporaryFile(dir=directory) as buffer:
        with bundle.open("events.jsonl", "w", force_zip64=True) as file:
            async for line in events:
                file.write(line.encode() + b"\n")
                count += 1
                if opened is not None:
                    buffer.writelines(_opened(line, opened))
        if opened is not None:
            buffer.seek(0)
            with bundle.open("opened.jsonl", "w", force_zip64=True) as file:
                copyfileobj(buffer, file)
    return count


def _opened(line: str, opened: Opening) -> Iterator[bytes]:
    """Yield the decrypted value of each token in a line; erased values are omitted."""
    for token in sorted({found[0] for found in TOKEN.finditer(line)}):
        if behind := opened(token):
            salt = b64encode(behind.salt).decode()
            value = {"token": token, "salt": salt, "text": behind.text}
            yield json.dumps(value).encode() + b"\n"


def _lines(rows: Iterable[Any]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)
