"""Evidence that was tampered with: whatever was done to it, the verifier names it."""

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
from toolbus_cli.evidence import verify


@pytest.fixture
def log(tmp_path: Path) -> SealedLog:
    return sealed_log(tmp_path)


def edited(line: bytes) -> bytes:
    """An event that says something else of the same length."""
    assert b"docs" in line
    return line.replace(b"docs", b"dogs", 1)


def test_a_log_as_it_was_sealed_is_sound(log: SealedLog) -> None:
    result = log.verified().text()
    assert result == {
        "sound": True, "origin": "toolbus", "customer": "acme",
        "log": "toolbus/acme/1763000000000", "events": 24, "before": 0,
        "first_event": "2027-01-15 08:00:00 UTC", "last_event": "2027-01-15 08:00:11 UTC",
        "checkpoints": 4, "calls": 12, "personal": 0, "erased": 0,
        "sound_until": "2027-01-15 10:47:04 UTC", "last_checkpoint": "2027-01-15 10:47:04 UTC",
        "checkpoints_seen": 0, "events_witnessed": 0, "witnessed_until": None,
        "not_proven": [
            "that no newer event was left out: no checkpoint kept elsewhere was given (--seen)",
            "that no other log was shown to others: no witness was given (--witness)",
        ],
        "findings": [],
    }  # fmt: skip


def test_a_flipped_bit_is_named_by_the_events_around_it(log: SealedLog) -> None:
    log.lines[7] = edited(log.lines[7])
    found = log.verified().found
    assert {kind for kind, _ in found} == {"tree", "altered"}
    assert "events 7 to 12 are not those sealed" in " ".join(what for _, what in found)
    assert "the event before event 10" in " ".join(what for _, what in found)


def test_a_deleted_event_is_named_by_its_producers_number(log: SealedLog) -> None:
    producer = json.loads(log.lines[8])["producer"]
    del log.lines[8]
    found = log.verified().found
    assert ("missing", f"of {producer}: number 5") in found
    assert "tree" in {kind for kind, _ in found}


def test_events_missing_at_the_end_are_fewer_than_were_sealed(log: SealedLog) -> None:
    del log.lines[-5:]
    assert "missing" in log.kinds()


def test_an_inserted_event_is_found(log: SealedLog) -> None:
    log.lines.insert(9, log.lines[3])
    assert {"added", "tree"} <= log.kinds()


def test_two_events_in_each_others_place_are_found(log: SealedLog) -> None:
    log.lines[2], log.lines[4] = log.lines[4], log.lines[2]
    assert "tree" in log.kinds()


def test_an_old_checkpoint_put_last_is_found(log: SealedLog) -> None:
    log.sealed.append(log.sealed[0])
    assert "replayed" in log.kinds()


def test_a_log_cut_back_to_an_old_checkpoint_is_found_by_who_was_told_a_later_one(
    log: SealedLog,
) -> None:
    cut = replace(log, lines=log.lines[:12], sealed=log.sealed[:2])
    assert cut.verified().text()["sound"]  # it cannot know by itself
    assert cut.kinds(seen(log.sealed[-1])) == {"missing"}


def test_a_forked_log_is_found_by_who_was_told_of_the_other(log: SealedLog) -> None:
    fork = replace(log, lines=[*log.lines[:-1], edited(log.lines[-1])]).resealed((6, 12, 18, 24))
    assert fork.verified().text()["sound"]  # signed with the true key, after the last event
    assert fork.kinds(seen(log.sealed[-1])) == {"tree", "forked"}


def test_a_fork_within_one_bundle_is_found(log: SealedLog) -> None:
    other = replace(log, lines=[edited(each) for each in log.lines]).resealed((18,))
    log.sealed[2:3] = [*other.sealed, log.sealed[2]]
    assert {"tree"} <= log.kinds()


def test_a_log_signed_with_another_key_is_found(log: SealedLog, tmp_path: Path) -> None:
    forger = load_signer("toolbus", tmp_path / "forged" / "key.pem")
    assert log.resealed((6, 12, 18, 24), forger).kinds() == {"signature"}


def test_an_edited_event_whose_tree_was_built_anew_is_found(log: SealedLog, tmp_path: Path) -> None:
    forger = load_signer("toolbus", tmp_path / "forged" / "key.pem")
    log.lines[7] = edited(log.lines[7])
    assert log.resealed((6, 12, 18, 24), forger).kinds() == {"signature", "altered"}


def test_a_producers_last_events_taken_out_are_found(log: SealedLog) -> None:
    last = json.loads(log.lines[-1])["producer"]
    kept = [line for line in log.lines[-6:] if json.loads(line)["producer"] != last]
    log.lines[-6:] = kept
    assert "missing" in log.kinds()


def test_an_intent_nobody_ended_is_found_even_where_the_tree_is_right(log: SealedLog) -> None:
    del log.lines[-1]
    alone = log.resealed((6, 12, 18, 23))
    assert alone.kinds() == {"unpaired"}


def test_a_part_of_a_log_is_proven_from_the_checkpoint_it_begins_with(log: SealedLog) -> None:
    part = replace(log, begins=log.sealed[1], lines=log.lines[12:], sealed=log.sealed[2:])
    assert part.verified().text()["sound"]
    wrong = replace(part, begins=replace(log.sealed[1], edge=log.sealed[0].edge))
    assert "forked" in wrong.kinds()


def test_what_is_no_bundle_is_said_to_be_none(log: SealedLog, tmp_path: Path) -> None:
    path = tmp_path / "no.zip"
    path.write_bytes(b"no zip")
    with pytest.raises(verify.UnreadableError, match="cannot be read"):
        verify.verify(str(path), log.signer.verifier)


def test_the_verifier_in_the_bundle_runs_alone(log: SealedLog, tmp_path: Path) -> None:
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
not proven that no newer event was left out: no checkpoint kept elsewhere was given (--seen)
not proven that no other log was shown to others: no witness was given (--witness)
sound until 2027-01-15 10:47:04 UTC: 24 events, 4 checkpoints, 12 calls
"""
    )


@pytest.mark.parametrize("what", TAMPERED)
def test_each_of_the_ways_to_tamper_is_named(tmp_path: Path, what: str) -> None:
    assert len(TAMPERED) == 21
    assert named(tmp_path, what)


def test_what_is_told_of_a_person_is_held_against_what_was_sealed(tmp_path: Path) -> None:
    log = sealed_log(tmp_path, user="ann")
    path = asyncio.run(log.written(reveal=True))
    forged = tmp_path / "forged.zip"
    with zipfile.ZipFile(path) as bundle, zipfile.ZipFile(forged, "w") as other:
        for name in bundle.namelist():
            other.writestr(name, bundle.read(name).replace(b"user:ann", b"user:bob"))
    report = verify.verify(str(forged), log.signer.verifier)
    assert {kind for kind, _ in report.found} == {"revealed"}
    assert "does not match its commitment" in report.found[0][1]


def test_a_bundle_without_what_is_sealed_of_people_is_as_sound(tmp_path: Path) -> None:
    report = sealed_log(tmp_path, user="ann").verified()
    assert (report.found, report.sealed, report.opened) == ([], 24, 0)
