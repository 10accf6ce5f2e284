"""Ways to tamper with evidence that the verifier must name, each done to a sealed log."""

import asyncio
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from harness.sealed import BEGAN, STREAM, World, seen, world
from harness.witness import Witness
from toolbus_audit.transparency_log.checkpoint import Signer, load_signer
from toolbus_cli.evidence import verify
from toolbus_common.contracts import PersonErased
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.messaging.outbox import Outbox
from toolbus_common.nats.connection import Envelope
from toolbus_common.nats.kv_bucket import Change

USER = "ann"


def edited(line: bytes) -> bytes:
    """An event that says something else of the same length."""
    return line.replace(b"docs", b"dogs", 1)


def _flipped(log: World) -> set[str]:
    log.lines[7] = edited(log.lines[7])
    return log.kinds()


def _deleted(log: World) -> set[str]:
    del log.lines[8]
    return log.kinds()


def _newest_deleted(log: World) -> set[str]:
    del log.lines[-6:]
    return log.kinds()


def _inserted(log: World) -> set[str]:
    log.lines.insert(9, log.lines[3])
    return log.kinds()


def _swapped(log: World) -> set[str]:
    log.lines[2], log.lines[4] = log.lines[4], log.lines[2]
    return log.kinds()


def _replayed(log: World) -> set[str]:
    log.sealed.append(log.sealed[0])
    return log.kinds()


def _forked(log: World) -> set[str]:
    """Signed with the true key: who was told of the other log finds it."""
    fork = replace(log, lines=[*log.lines[:-1], edited(log.lines[-1])])
    return fork.resealed({each.size for each in log.sealed}).kinds(seen(log.sealed[-1]))


def _signed_anew(log: World) -> set[str]:
    return log.resealed({each.size for each in log.sealed}, _forger(log)).kinds()


def _rebuilt(log: World) -> set[str]:
    log.lines[7] = edited(log.lines[7])
    return log.resealed({each.size for each in log.sealed}, _forger(log)).kinds()


def _tail_dropped(log: World) -> set[str]:
    last = json.loads(log.lines[-1])["producer"]
    log.lines[-6:] = [line for line in log.lines[-6:] if json.loads(line)["producer"] != last]
    return log.kinds()


def _stream_deleted(log: World) -> set[str]:
    """Another stream, from its beginning, and a log that is sound by itself."""
    result = seen(log.sealed[-1])
    anew = replace(world(log.directory / "anew"), signer=log.signer, stream=f"{STREAM}9")
    return anew.resealed({each.size for each in anew.sealed}).kinds(result)


def _shredded(log: World) -> set[str]:
    """Nothing is wrong with it, before or after; what was the person's is told to be erased."""
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


async def _forgotten(log: World, pseudonym: str) -> bytes:
    """The event that says so, as it is written."""
    messages: list[bytes] = []

    async def publish(envelope: Envelope) -> None:
        messages.append(envelope.payload)

    writer = EventPublisher(publish, Outbox(log.directory / "operator.events", 1 << 20))
    about = {"id": "f1", "at": BEGAN + 60.0, "customer": "acme", "by": "operator:bo"}
    await writer.publish_durable(PersonErased(**about, pseudonym=pseudonym))
    return messages[0]


def _relabelled(log: World) -> set[str]:
    """Another customer's in its manifest; what is signed stays acme's."""
    path = _rewritten(asyncio.run(log.written()), "manifest.json", b"acme", b"bolt")
    report = verify.verify(str(path), log.signer.verifier)
    assert report.log is not None
    return {kind for kind, _ in report.found} | {report.log.customer}


def _rows_relabelled(log: World) -> set[str]:
    log.lines[:] = [line.replace(b'"acme"', b'"bolt"') for line in log.lines]
    return log.kinds()


def _all_relabelled(log: World) -> set[str]:
    """Manifest, rows and checkpoints alike."""
    log.lines[:] = [line.replace(b'"acme"', b'"bolt"') for line in log.lines]
    notes = [replace(each, note=each.note.replace("/acme/", "/bolt/")) for each in log.sealed]
    return replace(log, sealed=notes, customer="bolt").kinds()


def _anothers_checkpoint(log: World) -> set[str]:
    """Of another customer, signed with the same key."""
    other = replace(log, customer="bolt").resealed({12})
    log.sealed.insert(2, other.sealed[0])
    return log.kinds()


def _another_installation(log: World) -> set[str]:
    """The same key in another installation, whose logs have other names."""
    other = load_signer("elsewhere", log.directory / "key.pem")
    foreign = log.resealed({each.size for each in log.sealed}, other)
    path = asyncio.run(foreign.written())
    return {kind for kind, _ in verify.verify(str(path), log.signer.verifier).found}


def _cut_back(log: World, by: int = 12) -> World:
    """Without the newest events and the checkpoints over them: sound, by itself."""
    kept = [each for each in log.sealed if each.size <= len(log.lines) - by]
    cut = replace(log, lines=log.lines[:-by], sealed=kept)
    assert not cut.kinds()
    return cut


def _cut_back_and_seen(log: World) -> set[str]:
    return _cut_back(log).kinds(seen(log.sealed[-1]))


def _cut_back_and_posted(log: World) -> set[str]:
    """The auditor kept what a webhook was posted."""
    data = {"customer": "acme", "note": log.sealed[-1].note}
    return _cut_back(log).kinds(json.dumps({"type": "checkpoint.signed", "data": data}))


def _cut_back_and_witnessed(log: World) -> set[str]:
    """A witness cosigned all checkpoints; the newest it has here is too old."""
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


def _split(log: World) -> set[str]:
    """Two auditors were shown two logs that go on from one; both bring what they were told."""
    fork = replace(log, lines=[*log.lines[:-1], edited(log.lines[-1])])
    result = fork.resealed({each.size for each in log.sealed}).sealed[-1]
    return _cut_back(log).kinds(seen(log.sealed[-1]) + seen(result))


def _rewritten(path: Path, member: str, old: bytes, new: bytes) -> Path:
    """The bundle with some bytes of a member replaced."""
    other = path.with_name("rewritten.zip")
    with zipfile.ZipFile(path) as bundle, zipfile.ZipFile(other, "w") as copy:
        for name in bundle.namelist():
            data = bundle.read(name)
            copy.writestr(name, data.replace(old, new) if name == member else data)
    return other


def _forger(log: World) -> Signer:
    return load_signer("toolbus", log.directory / "forged" / "key.pem")


# What is done, how it is done, and which findings name it: these, and perhaps what follows of it.
TAMPERED: dict[str, tuple[Callable[[World], set[str]], set[str]]] = {
    "a bit flipped in a row": (_flipped, {"tree", "altered"}),
    "a row deleted": (_deleted, {"missing", "tree"}),
    "the newest hour deleted": (_newest_deleted, {"missing"}),
    "a row inserted": (_inserted, {"duplicate", "tree"}),
    "two rows in each other's place": (_swapped, {"tree"}),
    "an old checkpoint replayed": (_replayed, {"replayed"}),
    "the log forked": (_forked, {"tree"}),
    "signed with another key": (_signed_anew, {"signature"}),
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
    "cut back; a webhook was told": (_cut_back_and_posted, {"missing"}),
    "cut back; a witness cosigned": (_cut_back_and_witnessed, {"stale"}),
    "two logs shown to two auditors": (_split, {"missing", "forked"}),
}


def named(directory: Path, what: str) -> bool:
    """Whether the verifier names it, on a fresh log."""
    done, expected = TAMPERED[what]
    return expected <= done(world(directory, user=USER))
