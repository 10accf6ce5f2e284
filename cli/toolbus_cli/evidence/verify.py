"""Checks a bundle of sealed facts, alone: `python3 verify.py bundle.zip --key KEY`.

It needs Python 3.11 and nothing else, imports nothing of Toolbus, and asks nobody. It rebuilds
the hash tree (RFC 6962, section 2.1) from the facts' own bytes and compares it with every signed
checkpoint (C2SP tlog-checkpoint, Ed25519 by RFC 8032); follows the chain in which each producer
numbers its facts; and pairs each call's intent with its outcome. What is wrong is named.

What facts say of people is sealed, and the proof holds with or without it: where the bundle tells
what was sealed (opened.jsonl), that is held against the facts, and where a person was forgotten, it
is counted as erased.

It cannot know whether newer facts were kept from it: give it checkpoints you were told earlier
with --seen, and it says if the bundle does not go on from them.
"""

import argparse
import base64
import hashlib
import hmac
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import IO

UNANSWERED_SECONDS = 7200  # after this an intent without an outcome is one nobody told of
MOST_FOUND = 100
LENGTH_OF_KEY, LENGTH_OF_SIGNATURE = 32, 64  # bytes
PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
CURVE = -121665 * pow(121666, -1, PRIME) % PRIME
ROOT_OF_MINUS_ONE = pow(2, (PRIME - 1) // 4, PRIME)
Point = tuple[int, int, int, int]
TOKEN = re.compile(rb"(~[A-Za-z0-9_-]{22})(?:\.[A-Za-z0-9_-]+)?")  # a name, or content


def sha256(*parts: bytes) -> bytes:
    """Hash the parts, one after another."""
    return hashlib.sha256(b"".join(parts)).digest()


class UnreadableError(Exception):
    """Something of the bundle cannot even be read."""


# -- Ed25519 (RFC 8032, section 5.1)


def _added(p: Point, q: Point) -> Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % PRIME, (p[1] + p[0]) * (q[1] + q[0]) % PRIME
    c, d = 2 * p[3] * q[3] * CURVE % PRIME, 2 * p[2] * q[2] % PRIME
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % PRIME, g * h % PRIME, f * g % PRIME, e * h % PRIME


def _times(number: int, point: Point) -> Point:
    total: Point = (0, 1, 1, 0)
    while number:
        if number & 1:
            total = _added(total, point)
        point = _added(point, point)
        number >>= 1
    return total


def _point(data: bytes) -> Point:
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= PRIME:
        raise UnreadableError("a point is not on the curve")
    square = (y * y - 1) * pow(CURVE * y * y + 1, -1, PRIME) % PRIME
    x = pow(square, (PRIME + 3) // 8, PRIME)
    if (x * x - square) % PRIME:
        x = x * ROOT_OF_MINUS_ONE % PRIME
    if (x * x - square) % PRIME or (x == 0 and sign):
        raise UnreadableError("a point is not on the curve")
    x = PRIME - x if x & 1 != sign else x
    return x, y, 1, x * y % PRIME


BASE = _point((4 * pow(5, -1, PRIME) % PRIME).to_bytes(32, "little"))


def signed_by(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether this is the signature of the key's holder under the message."""
    try:
        key, first = _point(public), _point(signature[:32])
    except UnreadableError:
        return False
    scalar = int.from_bytes(signature[32:], "little")
    if len(signature) != LENGTH_OF_SIGNATURE or scalar >= ORDER:
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    left = _times(scalar, BASE)
    right = _added(first, _times(int.from_bytes(digest, "little") % ORDER, key))
    return not (
        (left[0] * right[2] - right[0] * left[2]) % PRIME
        or (left[1] * right[2] - right[1] * left[2]) % PRIME
    )


# -- checkpoints -----------------------------------------------------------------------------


class Key:
    """A public key as `toolbus audit key` prints it: name+id+base64."""

    def __init__(self, text: str) -> None:
        try:
            self.name, self.id, encoded = text.strip().split("+", 2)
            data = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise UnreadableError("the key is not of the form name+id+base64") from error
        self.public = data[1:]
        known = sha256(self.name.encode(), b"\n", data)[:4].hex()
        if data[:1] != b"\x01" or len(data) != 1 + LENGTH_OF_KEY or known != self.id:
            raise UnreadableError("the key is damaged: its parts do not fit each other")


class Checkpoint:
    """One signed statement: how many facts the log had, and the root of their tree."""

    def __init__(self, note: str, key: Key) -> None:
        try:
            text, _, signatures = note.partition("\n\n")
            self.origin, size, root, at, before = text.split("\n")[:5]
            self.size, self.root = int(size), base64.b64decode(root)
            self.at = int(at.removeprefix("at "))
            _, size_before, root_before = before.split(" ")
            self.before = int(size_before), base64.b64decode(root_before)
        except ValueError as error:
            raise UnreadableError("a checkpoint cannot be read") from error
        self.genuine = _genuine(f"{text}\n".encode(), signatures, key)

    def __str__(self) -> str:
        return f"the checkpoint of {_moment(self.at)} at {self.size} facts"


def _genuine(text: bytes, signatures: str, key: Key) -> bool:
    for line in signatures.splitlines():
        dash, name, encoded = [*line.split(" "), "", ""][:3]
        data = base64.b64decode(encoded)
        if dash == "\u2014" and name == key.name and data[:4].hex() == key.id:
            return signed_by(key.public, data[4:], text)
    return False


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


# -- the tree --------------------------------------------------------------------------------


class Tree:
    """A tree that only grows, held by the roots of the perfect trees it is made of."""

    def __init__(self, size: int, edge: list[bytes]) -> None:
        self.size, self.edge = size, edge

    def append(self, line: bytes) -> None:
        """Add the bytes of one fact."""
        node, carries = sha256(b"\x00", line), self.size
        while carries & 1:
            node = sha256(b"\x01", self.edge.pop(), node)
            carries >>= 1
        self.edge.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Its hash."""
        found = self.edge[-1] if self.edge else sha256()
        for node in reversed(self.edge[:-1]):
            found = sha256(b"\x01", node, found)
        return found


# -- what facts say of themselves ------------------------------------------------------------


class Chains:
    """Each producer's facts: numbered without gaps, each with the hash of the one before it."""

    def __init__(self, report: "Report", *, whole: bool) -> None:
        self._report = report
        self._whole = whole
        self._next: dict[str, tuple[int, str]] = {}  # the number to come, and the hash before it
        self._early: dict[str, dict[int, tuple[str, str, int]]] = {}

    def take(self, fact: dict[str, object], line: bytes, number: int) -> None:
        """Take the next fact of the log."""
        producer, seq = str(fact.get("producer")), int(str(fact.get("seq", 0)))
        told = str(fact.get("prev", "")), sha256(line).hex(), number
        if producer not in self._next and not self._whole:
            self._next[producer] = seq, told[0]
        expected, _ = self._next.setdefault(producer, (1, ""))
        early = self._early.setdefault(producer, {})
        if seq < expected or seq in early:
            self._report.add("added", f"fact {number}: number {seq} of {producer} is there twice")
            return
        early[seq] = told
        self._follow(producer, early)

    def _follow(self, producer: str, early: dict[int, tuple[str, str, int]]) -> None:
        seq, hashed = self._next[producer]
        while seq in early:
            prev, own, number = early.pop(seq)
            if prev != hashed:
                what = f"the fact before fact {number} (number {seq - 1} of {producer})"
                self._report.add("altered", f"{what} is not what {producer} wrote")
            seq, hashed = seq + 1, own
        self._next[producer] = seq, hashed

    def end(self) -> None:
        """Name what never came."""
        for producer, early in self._early.items():
            expected = self._next[producer][0]
            for seq in sorted(early):
                if seq > expected:
                    missing = f"{expected} to {seq - 1}" if seq - 1 > expected else str(expected)
                    self._report.add("missing", f"of {producer}: number {missing}")
                expected = seq + 1


class Calls:
    """Every intent has an outcome, and no outcome comes without an intent."""

    def __init__(self, report: "Report", *, whole: bool) -> None:
        self._report = report
        self._whole = whole
        self._open: dict[str, float] = {}
        self._outcomes: dict[str, int] = {}
        self.begun = 0

    def take(self, fact: dict[str, object], number: int) -> None:
        """Take the next fact of the log."""
        name, call = fact.get("fact"), str(fact.get("call_id", ""))
        if name == "call.allowed":
            self.begun += 1
            if self._outcomes.pop(call, None) is None:
                self._open[call] = float(str(fact.get("deadline") or fact.get("at", 0)))
        elif name in ("call.completed", "call.failed") and self._open.pop(call, None) is None:
            self._outcomes[call] = number

    def end(self, now: float) -> None:
        """Name what stands alone; calls under way at the end are not."""
        for call, deadline in self._open.items():
            if now - deadline > UNANSWERED_SECONDS:
                self._report.add("unpaired", f"call {call} was let through, and never ended")


class People:
    """What is sealed of people, by whom facts call them; and who of them was forgotten."""

    def __init__(self, report: "Report") -> None:
        self._report = report
        self._sealed: dict[str, int] = {}
        self._forgotten: set[str] = set()

    def take(self, fact: dict[str, object], line: bytes) -> None:
        """Take the next fact of the log."""
        if fact.get("fact") == "person.forgotten":
            self._forgotten.add(str(fact.get("pseudonym")))
        elif b"~" in line:
            for found in TOKEN.findall(line):
                name = found.decode()
                self._sealed[name] = self._sealed.get(name, 0) + 1

    def end(self) -> None:
        """Count what nobody can read any more."""
        self._report.sealed = sum(self._sealed.values())
        self._report.erased = sum(self._sealed.get(name, 0) for name in self._forgotten)


def _check_opened(lines: Iterator[bytes], report: "Report") -> None:
    """Hold what the bundle says was sealed against the commitments that the facts have."""
    for line in lines:
        told = json.loads(line)
        report.opened += 1
        name, _, sealed = told["token"].partition(".")
        raw = base64.urlsafe_b64decode(f"{sealed}{'=' * (-len(sealed) % 4)}" or f"{name[1:]}==")
        committed = hmac.digest(base64.b64decode(told["salt"]), told["text"].encode(), "sha256")
        if not hmac.compare_digest(raw[:32], committed[: len(raw[:32])]):
            report.add("revealed", f"what is told of {name} is not what was sealed")


# -- the bundle ------------------------------------------------------------------------------


class Report:
    """What was checked, and what is wrong: each named, and not without end."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []
        self.facts = self.checkpoints = self.calls = self.before = self.sealed = self.opened = (
            self.erased
        ) = 0
        self.until = 0.0

    def add(self, kind: str, sentence: str) -> None:
        """Note something wrong."""
        if len(self.found) < MOST_FOUND:
            self.found.append((kind, sentence))

    def told(self) -> dict[str, object]:
        """As JSON."""
        findings = [{"kind": kind, "what": what} for kind, what in self.found]
        counts = {"facts": self.facts, "checkpoints": self.checkpoints, "calls": self.calls}
        people = {"before": self.before, "personal": self.sealed, "erased": self.erased}
        until = _moment(self.until)
        return {
            "sound": not findings, **counts, **people, "sealed_until": until, "findings": findings,
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [f"{kind:10} {what}" for kind, what in self.found]
        counts = f"{self.facts} facts, {self.checkpoints} checkpoints, {self.calls} calls"
        if self.before:
            counts += f" (behind {self.before} that are not here)"
        if self.sealed:
            counts += f", {self.sealed} personal fields ({self.erased} erased)"
        verdict = "NOT SOUND" if self.found else "sound"
        return "\n".join([*lines, f"{verdict}: {counts}, sealed until {_moment(self.until)}\n"])


def verify(path: str, key_text: str, seen: str = "") -> Report:
    """Check a bundle. Raises `UnreadableError` when it cannot be read at all."""
    report, key = Report(), Key(key_text)
    try:
        with zipfile.ZipFile(path) as bundle:
            _check(bundle, key, seen, report)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise UnreadableError(f"the bundle cannot be read: {error}") from error
    return report


def _check(bundle: zipfile.ZipFile, key: Key, seen: str, report: Report) -> None:
    begins = json.loads(bundle.read("manifest.json"))["begins"]
    notes = [json.loads(line)["note"] for line in bundle.read("checkpoints.jsonl").splitlines()]
    checkpoints = [Checkpoint(note, key) for note in notes]
    tree = Tree(0, [])
    if begins is not None:
        tree = Tree(begins["size"], [base64.b64decode(node) for node in begins["edge"]])
        checkpoints.insert(0, Checkpoint(begins["note"], key))
        if (checkpoints[0].size, checkpoints[0].root) != (tree.size, tree.root()):
            report.add("forked", "what the bundle begins with is not what was signed")
    known = [Checkpoint(note, key) for note in _notes(seen)]
    _check_statements(checkpoints, known, report)
    report.before = tree.size
    if "opened.jsonl" in bundle.namelist():
        with bundle.open("opened.jsonl") as opened:
            _check_opened(iter(opened), report)
    with bundle.open("facts.jsonl") as facts:
        _check_facts(facts, checkpoints, known, tree, report)


def _notes(text: str) -> Iterator[str]:
    """Checkpoints one was told earlier: a JSON object with a `note` on each line."""
    for line in text.splitlines():
        if line.strip():
            yield json.loads(line)["note"]


def _check_statements(
    checkpoints: list[Checkpoint], known: list[Checkpoint], report: Report
) -> None:
    report.checkpoints = len(checkpoints)
    if not checkpoints:
        report.add("unsealed", "there is no checkpoint, so nothing is proven")
        return
    report.until = checkpoints[-1].at
    for each in checkpoints:
        if not each.genuine:
            report.add("signature", f"{each} is not signed with this key")
    for each in (*checkpoints, *known):
        if each.origin != checkpoints[0].origin:
            report.add("forked", f"{each} is of another log, {each.origin}")
    _check_order(checkpoints, report)


def _check_order(checkpoints: list[Checkpoint], report: Report) -> None:
    for earlier, later in pairwise(checkpoints):
        if later.size < earlier.size or later.at < earlier.at:
            report.add("replayed", f"{later} comes after {earlier}")
        elif later.before[0] == earlier.size and later.before[1] != earlier.root:
            report.add("forked", f"{later} goes on from another tree than {earlier}")


def _check_facts(
    facts: IO[bytes],
    checkpoints: list[Checkpoint],
    known: list[Checkpoint],
    tree: Tree,
    report: Report,
) -> None:
    whole = tree.size == 0
    chains, calls = Chains(report, whole=whole), Calls(report, whole=whole)
    people = People(report)
    due = sorted([*checkpoints, *known], key=lambda each: each.size)
    place = _passed(due, 0, tree, report, tree.size)
    last_sound = tree.size
    for raw in facts:
        line = raw.rstrip(b"\n")
        tree.append(line)
        report.facts += 1
        try:
            fact = json.loads(line)
        except ValueError:
            fact = {}
        if isinstance(fact, dict) and "producer" in fact:
            chains.take(fact, line, tree.size)
            calls.take(fact, tree.size)
            people.take(fact, line)
        if place < len(due) and due[place].size <= tree.size:
            place = _passed(due, place, tree, report, last_sound)
            last_sound = tree.size
    for each in due[place:]:
        what = f"{each} counts more facts than the {tree.size} that are there"
        report.add("missing", what)
    if checkpoints and tree.size > max(each.size for each in checkpoints):
        report.add("unsealed", "the newest facts are sealed by no checkpoint")
    chains.end()
    calls.end(report.until)
    people.end()
    report.calls = calls.begun


def _passed(due: list[Checkpoint], place: int, tree: Tree, report: Report, sound: int) -> int:
    """Compare the tree with the checkpoints of its size; the place of the first that is larger."""
    while place < len(due) and due[place].size <= tree.size:
        each = due[place]
        if each.size == tree.size and each.root != tree.root():
            what = f"{each} does not fit: facts {sound + 1} to {each.size} are not those sealed"
            report.add("tree", what)
        place += 1
    return place


def main(words: list[str] | None = None) -> int:
    """Check the bundle named; 0 when it is sound, 1 when it is not, 2 when it cannot be read."""
    form = argparse.RawDescriptionHelpFormatter
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    asked.add_argument("bundle", help="what `toolbus audit export` wrote")
    asked.add_argument("--key", required=True, help="the public key, as given to you beforehand")
    asked.add_argument("--seen", help="a file of checkpoints you were told earlier")
    asked.add_argument("--json", action="store_true", help="say it as JSON")
    options = asked.parse_args(words)
    try:
        seen = ""
        if options.seen:
            seen = Path(options.seen).read_text("utf-8")
        report = verify(options.bundle, options.key, seen)
    except (UnreadableError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(report.told(), indent=2) + "\n" if options.json else str(report))
    return 1 if report.found else 0


if __name__ == "__main__":
    sys.exit(main())
