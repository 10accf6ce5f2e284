"""Services of an earlier version and of this one understand each other's messages.

`earlier.json` has the golden files of the earlier commit, and the digests of its migrations. After
a release, `TOOLBUS_WRITE_EARLIER=COMMIT pytest tests/contract/test_earlier_version.py` replaces it.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from toolbus_audit.clickhouse.migrate import migrations
from toolbus_common import contracts

HERE = Path(__file__).parent
MIGRATIONS = "../../services/audit/toolbus_audit/clickhouse/migrations"
STORED = HERE / "earlier.json"


def _write(commit: str) -> None:
    def git(*words: str) -> bytes:
        return subprocess.run(["git", *words], cwd=HERE, check=True, capture_output=True).stdout

    def files(directory: str) -> dict[str, bytes]:
        names = git("ls-tree", "--name-only", commit, f"{directory}/").decode().split()
        return {Path(name).stem: git("show", f"{commit}:./{name}") for name in names}

    found = {
        "commit": git("rev-parse", commit).decode().strip(),
        "migrations": {name: sha256(sql).hexdigest() for name, sql in files(MIGRATIONS).items()},
        "messages": {name: json.loads(text) for name, text in files("golden").items()},
    }
    STORED.write_text(json.dumps(found, indent=1) + "\n")


if chosen := os.environ.get("TOOLBUS_WRITE_EARLIER"):
    _write(chosen)
_STORED: dict[str, Any] = json.loads(STORED.read_text())
EARLIER: dict[str, dict[str, Any]] = _STORED["messages"]


def _present(name: str) -> dict[str, Any]:
    path = HERE / "golden" / f"{name}.json"
    assert path.exists(), f"{name} was removed: services of the earlier version still send it"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _encoded(earlier: dict[str, Any], fields: dict[str, Any]) -> bytes:
    head = json.dumps(fields).encode()
    return head + (b"\n" + earlier["body"].encode() if "body" in earlier else b"")


def _removed(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Yield the fields that are missing in `new`, or of another type."""
    if type(old) is not type(new):
        yield f"{path} was {old!r} and is {new!r}"
    elif isinstance(old, dict):
        for name, value in old.items():
            if name in new:
                yield from _removed(value, new[name], f"{path}.{name}")
            else:
                yield f"{path}.{name} was removed"
    elif isinstance(old, list) and old:
        yield from _removed(old[0], new[0], f"{path}[]") if new else (f"{path}[] was removed",)


@pytest.mark.parametrize("name", EARLIER)
def test_a_message_of_the_earlier_version_is_read(name: str) -> None:
    earlier, cls = EARLIER[name], getattr(contracts, name)
    cls.decode(_encoded(earlier, earlier["message"]))
    cls.decode(_encoded(earlier, {each: earlier["message"][each] for each in earlier["required"]}))


@pytest.mark.parametrize("name", EARLIER)
def test_the_earlier_version_reads_this_version_s_message(name: str) -> None:
    earlier, now = EARLIER[name], _present(name)
    assert now["subject"] == earlier["subject"]
    assert list(_removed(earlier["message"], now["message"], name)) == []
    assert {*earlier["required"]} <= {*now["required"]}, "the earlier version needs these fields"
    assert ("body" in now) == ("body" in earlier)


def test_the_migrations_of_the_earlier_version_are_unchanged() -> None:
    now = {f"{each.version:04}_{each.name}": each.digest for each in migrations()}
    assert _STORED["migrations"].items() <= now.items()


def test_the_comparison_finds_each_incompatible_change() -> None:
    old = {"a": 7, "b": [{"c": "text"}]}
    assert list(_removed(old, {**old, "added": 1})) == []
    assert list(_removed(old, {"a": "7", "b": []})) == [".a was 7 and is '7'", ".b[] was removed"]
    assert list(_removed(old, {"a": 7, "b": [{}]})) == [".b[].c was removed"]
