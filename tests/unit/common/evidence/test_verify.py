"""Evidence that was tampered with: the verifier reports every change."""

import asyncio
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from harness.audit.log_tampering import TAMPERED, named
from harness.audit.sealed_logs import SealedLog, sealed_log, seen
from toolbus_audit.transparency_log.checkpoint import load_signer
from toolbus_common.evidence import verify


@pytest.fixture
def log(tmp_path: Path) -> SealedLog:
    return sealed_log(tmp_path)


def edited(line: bytes) -> bytes:
    """Return the event with another text of the same length."""
    assert b"docs" in line
    return line.replace(b"docs", b"dogs", 1)


def test_an_unchanged_log_is_sound(log: SealedLog) -> None:
    result = log.verified().text()
    assert result == {
        "valid": True, "origin": "toolbus", "customer": "acme",
        "log": "toolbus/acme/1763000000000", "events": 24, "before": 0,
        "first_event": "2027-01-15 08:00:00 UTC", "last_event": "2027-01-15 08:00:11 UTC",
        "checkpoints": 4, "calls": 12, "personal": 0, "erased": 0,
        "verified_until": "2027-01-15 10:47:04 UTC", "last_checkpoint": "2027-01-15 10:47:04 UTC",
        "checkpoints_seen": 0, "events_witnessed": 0, "witnessed_until": None,
        "not_proven": [
            ("that no newer event was omitted: no checkpoint that was stored elsewhere was given "
            "(--seen)"),
            "that others received the same log: no witness was given (--witness)",
        ],
        "findings": [],
    }  # fmt: skip


def test_a_flipped_bit_is_located_by_the_surrounding_events(log: SealedLog) -> None:
    log.lines[7] = edited(log.lines[7])
    found = log.verified().found
    assert {kind for kind, _ in found} == {"tree", "altered"}
    assert "events 7 to 12 were changed" in " ".join(what for _, what in found)
    assert "the event before event 10" in " ".join(what for _, what in found)


def test_a_deleted_event_is_reported_with_its_producers_number(log: SealedLog) -> None:
    producer = json.loads(log.lines[8])["producer"]
    del log.lines[8]
    found = log.verified().found
    assert ("missing", f"of {producer}: number 5") in found
    assert "tree" in {kind for kind, _ in found}


def test_events_missing_at_the_end_are_found(log: SealedLog) -> None:
    del log.lines[-5:]
    assert "missing" in log.kinds()


def test_an_inserted_event_is_found(log: SealedLog) -> None:
    log.lines.insert(9, log.lines[3])
    assert {"duplicate", "tree"} <= log.kinds()


def test_two_swapped_events_are_found(log: SealedLog) -> None:
    log.lines[2], log.lines[4] = log.lines[4], log.lines[2]
    assert "tree" in log.kinds()


def test_an_old_checkpoint_at_the_end_is_found(log: SealedLog) -> None:
    log.sealed.append(log.sealed[0])
    assert "replayed" in log.kinds()


def test_a_truncated_log_is_found_with_a_later_checkpoint(
    log: SealedLog,
) -> None:
    cut = replace(log, lines=log.lines[:12], sealed=log.sealed[:2])
    assert cut.verified().text()["valid"]  # without that checkpoint it cannot know
    assert cut.kinds(seen(log.sealed[-1])) == {"missing"}


def test_a_forked_log_is_found_with_a_checkpoint_of_the_other_branch(log: SealedLog) -> None:
    fork = replace(log, lines=[*log.lines[:-1], edited(log.lines[-1])]).resealed((6, 12, 18, 24))
    assert fork.verified().text()["valid"]  # signed with the true key, after the last event
    assert fork.kinds(seen(log.sealed[-1])) == {"tree", "forked"}


def test_a_fork_within_one_bundle_is_found(log: SealedLog) -> None:
    other = replace(log, lines=[edited(each) for each in log.lines]).resealed((18,))
    log.sealed[2:3] = [*other.sealed, log.sealed[2]]
    assert {"tree"} <= log.kinds()


def test_a_log_signed_with_another_key_is_found(log: SealedLog, tmp_path: Path) -> None:
    forger = load_signer("toolbus", tmp_path / "forged" / "key.pem")
    assert log.resealed((6, 12, 18, 24), forger).kinds() == {"signature"}


def test_an_edited_event_in_a_rebuilt_tree_is_found(log: SealedLog, tmp_path: Path) -> None:
    forger = load_signer("toolbus", tmp_path / "forged" / "key.pem")
    log.lines[7] = edited(log.lines[7])
    assert log.resealed((6, 12, 18, 24), forger).kinds() == {"signature", "altered"}


def test_removed_last_events_of_a_producer_are_found(log: SealedLog) -> None:
    last = json.loads(log.lines[-1])["producer"]
    kept = [line for line in log.lines[-6:] if json.loads(line)["producer"] != last]
    log.lines[-6:] = kept
    assert "missing" in log.kinds()


def test_an_unresolved_intent_is_found_in_a_valid_tree(log: SealedLog) -> None:
    del log.lines[-1]
    alone = log.resealed((6, 12, 18, 23))
    assert alone.kinds() == {"unpaired"}


def test_part_of_a_log_is_verified_from_its_first_checkpoint(log: SealedLog) -> None:
    part = replace(log, start=log.sealed[1], lines=log.lines[12:], sealed=log.sealed[2:])
    assert part.verified().text()["valid"]
    wrong = replace(part, start=replace(log.sealed[1], edge=log.sealed[0].edge))
    assert "forked" in wrong.kinds()


def test_a_file_that_is_no_bundle_is_reported(log: SealedLog, tmp_path: Path) -> None:
    path = tmp_path / "no.zip"
    path.write_bytes(b"no zip")
    with pytest.raises(verify.UnreadableError, match="cannot be read"):
        verify.verify(str(path), log.signer.verifier)


def test_the_packaged_verifier_runs_without_toolbus(log: SealedLog, tmp_path: Path) -> None:
    log.verified()
    with zipfile.ZipFile(log.directory / "bundle.zip") as bundle:
        bundle.extract("verify.py", tmp_path / "alone")
    words = [sys.executable, "-I", "verify.py", str(log.directory / "bundle.zip")]
    done = subprocess.run(
        [*words, "--key", log.signer.verifier],
        cwd=tmp_path / "alone",
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        done.stdout
        == """\
log        customer acme of toolbus, log toolbus/acme/1763000000000
events     from 2027-01-15 08:00:00 UTC to 2027-01-15 08:00:11 UTC
not proven that no newer event was omitted: no checkpoint that was stored elsewhere was given \
(--seen)
not proven that others received the same log: no witness was given (--witness)
valid until 2027-01-15 10:47:04 UTC: 24 events, 4 checkpoints, 12 calls
"""
    )


@pytest.mark.parametrize("what", TAMPERED)
def test_every_kind_of_tampering_is_reported(tmp_path: Path, what: str) -> None:
    assert len(TAMPERED) == 21
    assert named(tmp_path, what)


def test_revealed_personal_data_is_checked_against_the_sealed_value(tmp_path: Path) -> None:
    log = sealed_log(tmp_path, user="ann")
    path = asyncio.run(log.written(reveal=True))
    forged = tmp_path / "forged.zip"
    with zipfile.ZipFile(path) as bundle, zipfile.ZipFile(forged, "w") as other:
        for name in bundle.namelist():
            other.writestr(name, bundle.read(name).replace(b"user:ann", b"user:bob"))
    report = verify.verify(str(forged), log.signer.verifier)
    assert {kind for kind, _ in report.found} == {"revealed"}
    assert "does not match its commitment" in report.found[0][1]


def test_a_bundle_without_personal_data_is_sound(tmp_path: Path) -> None:
    report = sealed_log(tmp_path, user="ann").verified()
    assert (report.found, report.encrypted, report.opened) == ([], 24, 0)
