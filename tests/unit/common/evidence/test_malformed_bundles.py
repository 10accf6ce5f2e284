"""Malformed bundles: a verdict and an exit code, never a traceback."""

import asyncio
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from harness.audit.sealed_logs import SealedLog, sealed_log
from toolbus_common.evidence import verify

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 1.5, 2**63, 10**30, 10**400, 1e308, "", "x", "\ud800", "../../etc/passwd",
    "AAAA", "A" * 70_000, [], [None], ["x"], [["AAAA"]] * 3, {}, {"note": 1}, "\n\n", "a\n\nb",
)  # fmt: skip
MEMBERS = ("manifest.json", "checkpoints.jsonl", "events.jsonl", "opened.jsonl")
MISSING = object()


@pytest.fixture(scope="module", autouse=True)
def _verified_signatures() -> Iterator[None]:
    """Verify each signature once: Ed25519 in Python is most of a verification's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "signed_by", cache(verify.signed_by))
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[SealedLog, dict[str, bytes]]:
    log = sealed_log(tmp_path_factory.mktemp("log"), user="ann")
    part = replace(log, start=log.sealed[1], lines=log.lines[12:], sealed=log.sealed[2:])
    with zipfile.ZipFile(asyncio.run(part.written(reveal=True))) as made:
        return part, {name: made.read(name) for name in made.namelist()}


def verify_members(
    log: SealedLog, members: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    path = log.directory / "odd.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return verify_file(log, path, capsys)


def verify_file(log: SealedLog, path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return the exit code and the output, which must end with the verdict."""
    code = verify.main([str(path), "--key", log.signer.verifier])
    out, err = capsys.readouterr()
    assert err == ""
    verdict = out.splitlines()[-1]
    expected = {0: "valid until", 1: "NOT VALID:", 2: "NOT VERIFIED:"}[code]
    assert verdict.startswith(expected)
    return code, out


def changed(value: Any) -> Iterator[Any]:
    """Yield the value with each part replaced by each odd value, or removed."""
    for odd in (*ODD, MISSING):
        if isinstance(value, dict):
            yield from ({k: v for k, v in value.items() if k != name} for name in value)
            for name, inner in value.items():
                if odd is not MISSING:
                    yield value | {name: odd}
                if isinstance(inner, dict) and odd is None:
                    yield from (value | {name: each} for each in changed(inner))


def lines(data: bytes) -> list[bytes]:
    return data.rstrip(b"\n").split(b"\n")


@pytest.mark.parametrize("member", MEMBERS)
def test_any_value_in_any_field_gets_a_verdict(
    bundle: tuple[SealedLog, dict[str, bytes]], member: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log, members = bundle
    assert verify_members(log, members, capsys)[0] == 0
    first, *rest = [members[member]] if member == "manifest.json" else lines(members[member])
    tried = 0
    for each in changed(json.loads(first)):
        data = b"\n".join([json.dumps(each).encode(), *rest, b""])
        code, _ = verify_members(log, members | {member: data}, capsys)
        unread = member == "manifest.json" and {k: v for k, v in each.items() if k != "form"} == {
            k: v for k, v in json.loads(first).items() if k != "form"
        }
        same = each == json.loads(first)
        extra = member == "checkpoints.jsonl" and each.get("note") == json.loads(first)["note"]
        assert code == 1 or unread or same or extra, each
        tried += 1
    assert tried > len(ODD)


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"{", b"[]", b"null", b"\xff\xfe\n", b"[" * 100_000, b'{"a":' * 50_000,
     b'{"note": ' + b"9" * 5000 + b"}", b"\x00" * 1000, b'{"producer": {}}\n' * 300],
)  # fmt: skip
def test_any_content_of_a_member_gets_a_verdict(
    bundle: tuple[SealedLog, dict[str, bytes]],
    member: str,
    data: bytes,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log, members = bundle
    code, out = verify_members(log, members | {member: data}, capsys)
    assert code == 1 or (member, data) == ("opened.jsonl", b"")
    assert len(out) < 100_000


@pytest.mark.parametrize("name", ["../../tmp/x", "/etc/passwd", "other.txt", "events.jsonl/x"])
def test_an_unknown_member_is_reported(
    bundle: tuple[SealedLog, dict[str, bytes]], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log, members = bundle
    code, out = verify_members(log, members | {name: b"x"}, capsys)
    assert (code, "an unexpected member" in out) == (1, True)


@pytest.mark.parametrize("name", MEMBERS[:3])
def test_a_missing_member_is_reported(
    bundle: tuple[SealedLog, dict[str, bytes]], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log, members = bundle
    code, out = verify_members(log, {k: v for k, v in members.items() if k != name}, capsys)
    assert (code, f"the bundle has no {name}" in out) == (1, True)


def test_a_duplicate_member_is_reported(
    bundle: tuple[SealedLog, dict[str, bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    log, members = bundle
    path = log.directory / "twice.zip"
    with zipfile.ZipFile(path, "w") as made:
        for name, data in members.items():
            made.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate"):
            made.writestr("events.jsonl", members["events.jsonl"])
    code, out = verify_file(log, path, capsys)
    assert (code, "the member events.jsonl more than once" in out) == (1, True)


def test_a_flipped_byte_anywhere_gets_a_verdict(
    bundle: tuple[SealedLog, dict[str, bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    log, members = bundle
    verify_members(log, members | {"verify.py": b""}, capsys)
    whole = (log.directory / "odd.zip").read_bytes()
    path = log.directory / "flipped.zip"
    for place in range(0, len(whole), max(1, len(whole) // 300)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        verify_file(log, path, capsys)
        path.write_bytes(whole[:place])
        assert verify_file(log, path, capsys)[0] == 2


Bomb = Callable[[zipfile.ZipFile], None]


def _zeros(name: str, unit: bytes) -> Bomb:
    def write(made: zipfile.ZipFile) -> None:
        with made.open(name, "w", force_zip64=True) as file:
            for _ in range(512):
                file.write(unit * ((1 << 20) // len(unit)))

    return write


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("unit", [b"\x00", b"\n", b'{"producer": "x", "seq": 1}\n'], ids=range(3))
def test_a_member_of_half_a_gigabyte_takes_little_memory(
    bundle: tuple[SealedLog, dict[str, bytes]], tmp_path: Path, name: str, unit: bytes
) -> None:
    log, members = bundle
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        for each, data in members.items():
            if each != name:
                made.writestr(each, data)
        _zeros(name, unit)(made)
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_AS, (300 << 20,) * 2); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    words = [verify.__file__, str(path), "--key", log.signer.verifier]
    done = subprocess.run(
        [sys.executable, "-c", limited, *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-1].startswith("NOT VALID:")


def test_a_member_is_read_only_to_its_declared_size(
    bundle: tuple[SealedLog, dict[str, bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    log, members = bundle
    verify_members(log, members, capsys)
    whole = bytearray((log.directory / "odd.zip").read_bytes())
    place = whole.rindex(b"PK\x01\x02")
    whole[place + 24 : place + 28] = struct.pack("<I", 5)  # the size in the central directory
    path = log.directory / "lying.zip"
    path.write_bytes(whole)
    assert verify_file(log, path, capsys)[0] == 1


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--witness", "x"], "name+id+base64"),
        (["--witness", "OWN"], "of type 1, not 4"),
        (["--quorum", "2"], "--quorum 2"),
        (["--until", "tomorrow"], "is not a time"),
        (["--seen", "/no/such/file"], "No such file"),
    ],
)
def test_invalid_arguments_are_reported(
    bundle: tuple[SealedLog, dict[str, bytes]],
    words: list[str],
    what: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log, _ = bundle
    given = [each.replace("OWN", log.signer.verifier) for each in words]
    code = verify.main([str(log.directory / "bundle.zip"), "--key", log.signer.verifier, *given])
    out = capsys.readouterr().out
    assert (code, out.startswith("NOT VERIFIED:"), what in out) == (2, True, True)
