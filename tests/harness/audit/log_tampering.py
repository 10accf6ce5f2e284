"""Manipulations of a sealed log, each with the findings with which the verifier must report it."""

import asyncio
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from harness.audit.sealed_logs import BEGAN, STREAM, SealedLog, sealed_log, seen
from harness.audit.witness import Witness
from toolbus_audit.transparency_log.checkpoint import Signer, load_signer
from toolbus_common.contracts import PersonErased
from toolbus_common.evidence import verify
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.messaging.outbox import Outbox
from toolbus_common.nats.connection import Envelope
from toolbus_common.nats.kv_bucket import Change

USER = "ann"


def edited(line: bytes) -> bytes:
    """Change an event. Its length stays the same."""
    return line.replace(b"docs", b"dogs", 1)


def _flipped(log: SealedLog) -> set[str]:
    log.lines[7] = edited(log.lines[7])
    return log.kinds()


def _deleted(log: SealedLog) -> set[str]:
    del log.lines[8]
    return log.kinds()


def _newest_deleted(log: SealedLog) -> set[str]:
    del log.lines[-6:]
    return log.kinds()


def _inserted(log: SealedLog) -> set[str]:
    log.lines.insert(9, log.lines[3])
    return log.kinds()


def _swapped(log: SealedLog) -> set[str]:
    log.lines[2], log.lines[4] = log.lines[4], log.lines[2]
    return log.kinds()


def _replayed(log: SealedLog) -> set[str]:
    log.sealed.append(log.sealed[0])
    return log.kinds()


def _forked(log: SealedLog) -> set[str]:
    """Sign a second log with the true key. An auditor with the other checkpoint detects it."""
    fork = replace(log, lines=[*log.lines[:-1], edited(log.lines[-1])])
    return fork.resealed({each.size for each in log.sealed}).kinds(seen(log.sealed[-1]))


def _signed_again(log: SealedLog) -> set[str]:
    return log.resealed({each.size for each in log.sealed}, _forger(log)).kinds()


def _rebuilt(log: SealedLog) -> set[str]:
    log.lines[7] = edited(log.lines[7])
    return log.resealed({each.size for each in log.sealed}, _forger(log)).kinds()


def _tail_dropped(log: SealedLog) -> set[str]:
    last = json.loads(log.lines[-1])["producer"]
    log.lines[-6:] = [line for line in log.lines[-6:] if json.loads(line)["producer"] != last]
    return log.kinds()


def _stream_deleted(log: SealedLog) -> set[str]:
    """Delete the stream, and start another log. The new log is consistent."""
    result = seen(log.sealed[-1])
    second = replace(sealed_log(log.directory / "anew"), signer=log.signer, stream=f"{STREAM}9")
    return second.resealed({each.size for each in second.sealed}).kinds(result)


def _shredded(log: SealedLog) -> set[str]:
    """Erase a person. The log stays valid, and the report contains the erased data."""
    people = log.people
    assert people is not None
    pseudonym = people.pseudonym(f"user:{USER}")
    before = log.verified(reveal=True)
    people.apply_change(Change(people.entry_of(f"user:{USER}"), None, 9))
    log.lines.append(asyncio.run(_forgotten(log, pseudonym)))
    after = log.resealed({each.size for each in log.sealed} | {len(log.lines)})
    report = after.verified(reveal=True)
    proven = not before.found and not report.found
    erased = report.erased == report.encrypted == before.encrypted > 0
    return (
        {"valid", "erased"} if proven and erased and before.opened and not report.opened else set()
    )


async def _forgotten(log: SealedLog, pseudonym: str) -> bytes:
    """Write the same erasure event as audit."""
    messages: list[bytes] = []

    async def publish(envelope: Envelope) -> None:
        messages.append(envelope.payload)

    writer = EventPublisher(publish, Outbox(log.directory / "operator.events", 1 << 20))
    about = {"id": "f1", "at": BEGAN + 60.0, "customer": "acme", "by": "operator:bo"}
    await writer.publish_durable(PersonErased(**about, pseudonym=pseudonym))
    return messages[0]


def _relabelled(log: SealedLog) -> set[str]:
    """Change the customer in the manifest. The signed parts still contain acme."""
    path = _rewritten(asyncio.run(log.written()), "manifest.json", b"acme", b"bolt")
    report = verify.verify(str(path), log.signer.verifier)
    assert report.log is not None
    return {kind for kind, _ in report.found} | {report.log.customer}


def _rows_relabelled(log: SealedLog) -> set[str]:
    log.lines[:] = [line.replace(b'"acme"', b'"bolt"') for line in log.lines]
    return log.kinds()


def _all_relabelled(log: SealedLog) -> set[str]:
    """Change the customer in the manifest, the rows and the checkpoints."""
    log.lines[:] = [line.replace(b'"acme"', b'"bolt"') for line in log.lines]
    notes = [replace(each, note=each.note.replace("/acme/", "/bolt/")) for each in log.sealed]
    return replace(log, sealed=notes, customer="bolt").kinds()


def _anothers_checkpoint(log: SealedLog) -> set[str]:
    """Insert another customer's checkpoint, signed with the same key."""
    other = replace(log, customer="bolt").resealed({12})
    log.sealed.insert(2, other.sealed[0])
    return log.kinds()


def _another_installation(log: SealedLog) -> set[str]:
    """Present the log of another installation that uses the same key."""
    other = load_signer("elsewhere", log.directory / "key.pem")
    foreign = log.resealed({each.size for each in log.sealed}, other)
    path = asyncio.run(foreign.written())
    return {kind for kind, _ in verify.verify(str(path), log.signer.verifier).found}


def _cut_back(log: SealedLog, by: int = 12) -> SealedLog:
    """Remove the newest events and their checkpoints. The rest of the log is consistent."""
    kept = [each for each in log.sealed if each.size <= len(log.lines) - by]
    cut = replace(log, lines=log.lines[:-by], sealed=kept)
    assert not cut.kinds()
    return cut


def _cut_back_and_seen(log: SealedLog) -> set[str]:
    return _cut_back(log).kinds(seen(log.sealed[-1]))


def _cut_back_and_posted(log: SealedLog) -> set[str]:
    """Remove the newest events. The auditor has the checkpoint that a webhook received."""
    data = {"customer": "acme", "note": log.sealed[-1].note}
    return _cut_back(log).kinds(json.dumps({"type": "checkpoint.signed", "data": data}))


def _cut_back_and_witnessed(log: SealedLog) -> set[str]:
    """Remove the newest events of a log whose checkpoints are all cosigned."""
    witness = Witness()
    last = len(log.sealed) - 1
    for place, each in enumerate(log.sealed):
        text = f"{each.note.rpartition(chr(10) * 2)[0]}\n"
        at = BEGAN + 20_000 + (3600 if place == last else 0)
        log.sealed[place] = replace(each, note=each.note + witness.cosign(text, at))
    key = verify.Key(witness.verifier, verify.COSIGNED)
    wanted = verify.Wanted((), (key,), until=BEGAN + 20_000 + 3600)
    whole = asyncio.run(log.written())
    assert not verify.verify(str(whole), log.signer.verifier, wanted=wanted).found
    path = asyncio.run(_cut_back(log).written())
    return {kind for kind, _ in verify.verify(str(path), log.signer.verifier, wanted=wanted).found}


def _split(log: SealedLog) -> set[str]:
    """Show two auditors two continuations of one log. Both auditors present their checkpoints."""
    fork = replace(log, lines=[*log.lines[:-1], edited(log.lines[-1])])
    result = fork.resealed({each.size for each in log.sealed}).sealed[-1]
    return _cut_back(log).kinds(seen(log.sealed[-1]) + seen(result))


def _rewritten(path: Path, member: str, old: bytes, new: bytes) -> Path:
    """Replace bytes of one member of the bundle."""
    other = path.with_name("rewritten.zip")
    with zipfile.ZipFile(path) as bundle, zipfile.ZipFile(other, "w") as copy:
        for name in bundle.namelist():
            data = bundle.read(name)
            copy.writestr(name, data.replace(old, new) if name == member else data)
    return other


def _forger(log: SealedLog) -> Signer:
    return load_signer("toolbus", log.directory / "forged" / "key.pem")


# Each manipulation with its function and the findings that report it. Further findings can follow.
TAMPERED: dict[str, tuple[Callable[[SealedLog], set[str]], set[str]]] = {
    "a bit flipped in a row": (_flipped, {"tree", "altered"}),
    "a row deleted": (_deleted, {"missing", "tree"}),
    "the newest hour deleted": (_newest_deleted, {"missing"}),
    "a row inserted": (_inserted, {"duplicate", "tree"}),
    "two rows in each other's place": (_swapped, {"tree"}),
    "an old checkpoint replayed": (_replayed, {"replayed"}),
    "the log forked": (_forked, {"tree"}),
    "signed with another key": (_signed_again, {"signature"}),
    "a row edited and its tree rebuilt": (_rebuilt, {"signature", "altered"}),
    "one producer's tail dropped": (_tail_dropped, {"missing"}),
    "the stream deleted": (_stream_deleted, {"forked"}),
    "a person's key shredded": (_shredded, {"valid", "erased"}),
    "the manifest relabelled to another customer": (_relabelled, {"relabelled", "acme"}),
    "the rows relabelled to another customer": (_rows_relabelled, {"relabelled", "tree"}),
    "everything relabelled to another customer": (_all_relabelled, {"signature"}),
    "another customer's checkpoint inserted": (_anothers_checkpoint, {"forked"}),
    "another installation's log, the same key": (_another_installation, {"signature", "forked"}),
    "cut back; a checkpoint was kept": (_cut_back_and_seen, {"missing"}),
    "cut back; a webhook received the checkpoint": (_cut_back_and_posted, {"missing"}),
    "cut back; a witness cosigned": (_cut_back_and_witnessed, {"stale"}),
    "two logs shown to two auditors": (_split, {"missing", "forked"}),
}


def named(directory: Path, what: str) -> bool:
    """Return whether the verifier reports this manipulation of a new log."""
    done, expected = TAMPERED[what]
    return expected <= done(sealed_log(directory, user=USER))
