"""Verify a bundle of signed events offline: `python3 verify.py bundle.zip --key KEY`.

The program needs only Python 3.11: it imports nothing of Toolbus and uses no network. It rebuilds
the hash tree (RFC 6962, section 2.1) from the bytes of the events and compares it with each signed
checkpoint (C2SP tlog-checkpoint, Ed25519 by RFC 8032). It checks the hash chain of each producer,
and pairs each call's intent with its outcome. It reports findings and unproven claims. The log and
its customer are taken from the signed text, never from the manifest.

Personal data in events is encrypted, and verification does not require it. If the bundle contains
decrypted values (opened.jsonl), they are compared with the commitments in the events. Values of
erased data subjects are counted as erased.

The program alone cannot detect that newer events are missing. Pass checkpoints that you stored
elsewhere (--seen), and the keys of witnesses (--witness) whose cosignatures the checkpoints must
have (C2SP tlog-cosignature).

Exit code: 0 valid, 1 not valid, 2 not verified (unreadable bundle or unusable arguments).
"""

import argparse
import base64
import hashlib
import hmac
import json
import math
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

UNANSWERED_SECONDS = 7200  # an intent without an outcome is a finding this long after its deadline
MAX_FINDINGS = 100  # findings after which reading stops
LENGTH_OF_KEY, LENGTH_OF_SIGNATURE = 32, 64  # bytes
LENGTH_OF_STAMP = 8  # bytes of a cosignature's time
LONGEST_MANIFEST, LONGEST_NOTE, LONGEST_LINE = 1 << 20, 1 << 16, 1 << 24  # bytes
LONGEST_NAME = 256  # characters of a producer, and of a call's id
MAX_UNSIGNED = 1_000_000  # events that are read if no checkpoint is signed
LATEST = 253402300799  # the last second that Python can represent as a date
CHUNK = 1 << 18  # bytes read at once
MEMBERS = frozenset(
    {
        "manifest.json",
        "checkpoints.jsonl",
        "events.jsonl",
        "opened.jsonl",
        "verify.py",
        "README.txt",
    }
)
PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
CURVE = -121665 * pow(121666, -1, PRIME) % PRIME
ROOT_OF_MINUS_ONE = pow(2, (PRIME - 1) // 4, PRIME)
Point = tuple[int, int, int, int]
TOKEN = re.compile(rb"(~[A-Za-z0-9_-]{22})(?:\.[A-Za-z0-9_-]+)?")  # a pseudonym or content


def sha256(*parts: bytes) -> bytes:
    """Return the SHA-256 hash of the concatenated parts."""
    return hashlib.sha256(b"".join(parts)).digest()


class UnreadableError(Exception):
    """An input is unusable: an unreadable bundle, a damaged key, a file without checkpoints."""


class MalformedError(Exception):
    """A member of the bundle is malformed."""


class EnoughError(Exception):
    """The limit of findings is reached."""


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
        raise UnreadableError("the public key or signature is not a point on the curve")
    square = (y * y - 1) * pow(CURVE * y * y + 1, -1, PRIME) % PRIME
    x = pow(square, (PRIME + 3) // 8, PRIME)
    if (x * x - square) % PRIME:
        x = x * ROOT_OF_MINUS_ONE % PRIME
    if (x * x - square) % PRIME or (x == 0 and sign):
        raise UnreadableError("the public key or signature is not a point on the curve")
    x = PRIME - x if x & 1 != sign else x
    return x, y, 1, x * y % PRIME


BASE = _point((4 * pow(5, -1, PRIME) % PRIME).to_bytes(32, "little"))


def signed_by(public: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether an Ed25519 signature of a message is valid for a public key."""
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

NUMBER = "(0|[1-9][0-9]{0,18})"
HASH = "([A-Za-z0-9+/]{43}=)"
TEXT = re.compile(rf"([^\n]{{1,512}})\n{NUMBER}\n{HASH}\nat {NUMBER}\nbefore {NUMBER} {HASH}\n")
SIGNED, COSIGNED = b"\x01", b"\x04"  # the algorithms' numbers in C2SP signed-note


class Key:
    """The public key of a log or of a witness, written as name+id+base64."""

    def __init__(self, text: str, algorithm: bytes = SIGNED) -> None:
        try:
            self.name, self.id, encoded = text.strip().split("+", 2)
            data = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise UnreadableError("the key must have the form name+id+base64") from error
        self.public = data[1:]
        known = sha256(self.name.encode(), b"\n", data)[:4].hex()
        if len(data) != 1 + LENGTH_OF_KEY or known != self.id:
            raise UnreadableError("the key is damaged: its parts do not match; copy it completely")
        if data[:1] != algorithm:
            raise UnreadableError(
                f"the key of {self.name} is of type {data[0]}, not {algorithm[0]}: --key takes a "
                "log's Ed25519 key (1), --witness a witness's Ed25519 cosignature key (4)"
            )

    def signatures(self, note: str) -> Iterator[bytes]:
        """Yield the signatures of a note with this key's name and id; they are not verified."""
        for line in note.rpartition("\n\n")[2].splitlines():
            words = line.split(" ")
            if len(words) == 3 and words[:2] == ["\u2014", self.name]:  # noqa: PLR2004
                try:
                    data = base64.b64decode(words[2], validate=True)
                except ValueError:
                    continue
                if data[:4].hex() == self.id:
                    yield data[4:]

    def signed(self, note: str, text: bytes) -> bool:
        """Return whether this key signed the text of a note."""
        return any(signed_by(self.public, each, text) for each in self.signatures(note))

    def cosigned(self, note: str, text: bytes) -> int:
        """Return the last Unix time at which this witness cosigned a note, or 0 without one."""
        newest = 0
        for each in self.signatures(note):
            at = int.from_bytes(each[:LENGTH_OF_STAMP], "big")
            message = b"cosignature/v1\ntime %d\n%b" % (at, text)
            if signed_by(self.public, each[LENGTH_OF_STAMP:], message):
                newest = max(newest, at)
        return newest


@dataclass(frozen=True, slots=True)
class Log:
    """The identity of a log; its origin line is installation/customer/stream."""

    installation: str
    customer: str
    stream: str

    def __str__(self) -> str:
        return f"{self.installation}/{quote(self.customer, safe='')}/{self.stream}"


def log_of(origin: str) -> Log:
    """Parse an origin line; each log has exactly one such line."""
    installation, customer, stream = ["", "", *origin.rsplit("/", 2)][-3:]
    found = Log(installation, unquote(customer), stream)
    if not (installation and customer and stream.isdecimal()) or str(found) != origin:
        raise MalformedError(f"the origin {origin!r} is not installation/customer/log")
    return found


class Checkpoint:
    """A checkpoint: the number of events in the log, and the root hash of their tree."""

    def __init__(self, note: str, key: Key) -> None:
        text = note.rpartition("\n\n")[0] + "\n"
        found = TEXT.fullmatch(text)
        if found is None:
            raise MalformedError("a checkpoint does not have the form of a C2SP tlog-checkpoint")
        origin, size, root, at, before, root_before = found.groups()
        self.log = log_of(origin)
        self.size, self.root, self.at = int(size), base64.b64decode(root), int(at)
        self.before = int(before), base64.b64decode(root_before)
        self.note, self.text = note, text.encode()
        self.is_signed = key.signed(note, self.text)

    def follows(self, earlier: "Checkpoint") -> bool:
        """Return whether this checkpoint may have been created after an earlier one."""
        newer = (self.size, self.at) != (earlier.size, earlier.at)
        return newer and self.size >= earlier.size and self.at >= earlier.at

    def __str__(self) -> str:
        return f"the checkpoint of {_moment(self.at)} at {self.size} events"


def _moment(at: float) -> str:
    if at > LATEST:
        return f"{at} s"
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


# -- the tree --------------------------------------------------------------------------------


class Tree:
    """An append-only Merkle tree, stored as the roots of its perfect subtrees."""

    def __init__(self, size: int, edge: list[bytes]) -> None:
        self.size, self.edge = size, edge

    def append(self, line: bytes) -> None:
        """Add the bytes of one event."""
        node, carries = sha256(b"\x00", line), self.size
        while carries & 1:
            node = sha256(b"\x01", self.edge.pop(), node)
            carries >>= 1
        self.edge.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Return the root hash."""
        found = self.edge[-1] if self.edge else sha256()
        for node in reversed(self.edge[:-1]):
            found = sha256(b"\x01", node, found)
        return found


# -- checks of events ------------------------------------------------------------------------


class Chains:
    """Check of each producer's hash chain: consecutive numbers and hashes of previous events."""

    def __init__(self, report: "Report", *, whole: bool) -> None:
        self._report = report
        self._whole = whole
        self._next: dict[str, tuple[int, str]] = {}  # the next number, and the previous hash
        self._early: dict[str, dict[int, tuple[str, str, int]]] = {}

    def take(self, event: dict[str, Any], line: bytes, number: int) -> None:
        """Check the next event of the log."""
        producer, seq, prev = event["producer"], event.get("seq", 0), event.get("prev", "")
        if not (_named(producer) and _named(prev) and type(seq) is int):
            what = "its producer, seq or prev has the wrong type"
            self._report.add("malformed", f"event {number}: {what}")
            return
        if producer not in self._next and not self._whole:
            self._next[producer] = seq, prev
        expected, _ = self._next.setdefault(producer, (1, ""))
        early = self._early.setdefault(producer, {})
        if seq < expected or seq in early:
            self._report.add("duplicate", f"event {number}: {producer} has number {seq} twice")
            return
        early[seq] = prev, sha256(line).hex(), number
        self._follow(producer, early)

    def _follow(self, producer: str, early: dict[int, tuple[str, str, int]]) -> None:
        seq, hashed = self._next[producer]
        while seq in early:
            prev, own, number = early.pop(seq)
            if prev != hashed:
                what = f"the event before event {number} (number {seq - 1} of {producer})"
                self._report.add("altered", f"{what} differs from what {producer} wrote")
            seq, hashed = seq + 1, own
        self._next[producer] = seq, hashed

    def end(self) -> None:
        """Report the missing numbers of each producer."""
        for producer, early in self._early.items():
            expected = self._next[producer][0]
            for seq in sorted(early):
                if seq > expected:
                    missing = f"{expected} to {seq - 1}" if seq - 1 > expected else str(expected)
                    self._report.add("missing", f"of {producer}: number {missing}")
                expected = seq + 1


class Calls:
    """Check that each call's intent has an outcome."""

    def __init__(self, report: "Report") -> None:
        self._report = report
        self._open: dict[str, float] = {}
        self._outcomes: set[str] = set()
        self.started = 0

    def take(self, event: dict[str, Any], number: int) -> None:
        """Check the next event of the log."""
        name, call = event.get("event"), event.get("call_id", "")
        if name not in ("call.allowed", "call.extended", "call.completed", "call.failed"):
            return
        deadline = event.get("deadline") or event.get("at", 0)
        if not (_named(call) and _is_time(deadline)):
            self._report.add("malformed", f"event {number}: its call_id or deadline is invalid")
        elif name == "call.allowed":
            self.started += 1
            if call not in self._outcomes:
                self._open[call] = deadline
            self._outcomes.discard(call)
        elif name == "call.extended":
            if call in self._open:
                self._open[call] = max(self._open[call], deadline)
        elif self._open.pop(call, None) is None:
            self._outcomes.add(call)

    def end(self, now: float) -> None:
        """Report intents without an outcome, except calls that may still be running."""
        for call, deadline in self._open.items():
            if now - deadline > UNANSWERED_SECONDS:
                self._report.add("unpaired", f"call {call} was allowed but has no outcome")


class People:
    """Counter of encrypted and erased values by pseudonym."""

    def __init__(self, report: "Report") -> None:
        self._report = report
        self._encrypted: dict[str, int] = {}
        self._erased: set[str] = set()

    def take(self, event: dict[str, Any], line: bytes) -> None:
        """Check the next event of the log."""
        if event.get("event") == "person.erased":
            self._erased.add(str(event.get("pseudonym"))[:LONGEST_NAME])
        elif b"~" in line:
            for found in TOKEN.findall(line):
                name = found.decode()
                self._encrypted[name] = self._encrypted.get(name, 0) + 1

    def end(self) -> None:
        """Store the numbers of encrypted values and of erased values in the report."""
        self._report.encrypted = sum(self._encrypted.values())
        self._report.erased = sum(self._encrypted.get(name, 0) for name in self._erased)


def _named(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_NAME


def _is_time(value: object) -> bool:
    """Return whether a value is a number of seconds that a date can represent."""
    return type(value) in (int, float) and 0 <= value <= LATEST  # type: ignore[operator]


def _check_opened(lines: Iterator[bytes], report: "Report") -> None:
    """Compare decrypted values of the bundle with the commitments in the events."""
    for number, line in enumerate(lines, 1):
        report.opened += 1
        try:
            entry = json.loads(line)
            name, _, sealed = entry["token"].partition(".")
            raw = base64.urlsafe_b64decode(f"{sealed}{'=' * (-len(sealed) % 4)}" or f"{name[1:]}==")
            committed = hmac.digest(
                base64.b64decode(entry["salt"]), entry["text"].encode(), "sha256"
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            report.add("malformed", f"opened.jsonl: line {number} is malformed")
            continue
        if not raw or not hmac.compare_digest(raw[:32], committed[: len(raw[:32])]):
            report.add("revealed", f"the decrypted value of {name} does not match its commitment")


# -- the report ------------------------------------------------------------------------------


class Report:
    """Result of a verification: counts, at most `MAX_FINDINGS` findings, and unproven claims."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []
        self.unproven: list[str] = []
        self.log: Log | None = None
        self.events = self.checkpoints = self.calls = self.before = self.encrypted = self.opened = (
            self.erased
        ) = self.seen = self.witnessed = self.witnessed_at = self.until = 0
        self.first, self.last = math.inf, 0.0

    def add(self, kind: str, text: str) -> None:
        """Add a finding. Raises `EnoughError` if the limit is reached."""
        self.found.append((kind, text))
        if len(self.found) >= MAX_FINDINGS:
            raise EnoughError

    def happened(self, at: object) -> None:
        """Record the time of an event."""
        if _is_time(at):
            self.first, self.last = min(self.first, at), max(self.last, at)  # type: ignore[call-overload]

    def text(self) -> dict[str, object]:
        """Return the report as a dictionary for JSON."""
        timed = self.first <= self.last
        return {
            "valid": not self.found,
            "origin": self.log.installation if self.log else None,
            "customer": self.log.customer if self.log else None,
            "log": str(self.log) if self.log else None,
            "events": self.events, "before": self.before,
            "first_event": _moment(self.first) if timed else None,
            "last_event": _moment(self.last) if timed else None,
            "checkpoints": self.checkpoints, "calls": self.calls,
            "personal": self.encrypted, "erased": self.erased,
            "verified_until": _moment(self.until) if self.until and not self.found else None,
            "last_checkpoint": _moment(self.until) if self.until else None,
            "checkpoints_seen": self.seen, "events_witnessed": self.witnessed,
            "witnessed_until": _moment(self.witnessed_at) if self.witnessed_at else None,
            "not_proven": self.unproven,
            "findings": [{"kind": kind, "what": what} for kind, what in self.found],
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [f"{kind:10} {_printable(what)}" for kind, what in self.found]
        counts = f"{self.events} events, {self.checkpoints} checkpoints, {self.calls} calls"
        if self.before:
            counts += f" (after {self.before} that are not in the bundle)"
        if self.encrypted:
            counts += f", {self.encrypted} personal fields ({self.erased} erased)"
        whose = "no log"
        if self.log:
            whose = f"customer {self.log.customer} of {self.log.installation}, log {self.log}"
        lines.append(f"log        {_printable(whose)}")
        if self.first <= self.last:
            lines.append(f"events     from {_moment(self.first)} to {_moment(self.last)}")
        if self.witnessed_at:
            witnessed = f"{self.witnessed} events, at {_moment(self.witnessed_at)}"
            lines.append(f"witnessed  {witnessed}")
        lines += [f"not proven {each}" for each in self.unproven]
        until = _moment(self.until) if self.until else "never"
        verdict = f"NOT VALID: {counts}, last checkpoint {until}"
        if not self.found:
            verdict = f"valid until {until}: {counts}"
        return "\n".join([*lines, f"{verdict}\n"])


def _printable(text: str) -> str:
    """Return text from the bundle without control characters."""
    return "".join(each if each.isprintable() else "?" for each in text[:1000])


@dataclass(frozen=True, slots=True)
class Wanted:
    """The auditor's expectations of the bundle, besides the key."""

    seen: Iterable[str] = ()  # checkpoints stored elsewhere
    witnesses: tuple[Key, ...] = ()
    quorum: int = 0  # the number of witnesses that must have cosigned; 0: all
    customer: str = ""
    until: float = 0.0  # earliest permitted Unix time of the last checkpoint


# -- the bundle ------------------------------------------------------------------------------


def verify(path: str, key_text: str, seen: str = "", wanted: Wanted | None = None) -> Report:
    """Verify a bundle. Raises `UnreadableError` if the bundle, key or options are unusable."""
    report, key = Report(), Key(key_text)
    wanted = wanted or Wanted(notes_of(seen, "--seen"))
    if wanted.quorum > len(wanted.witnesses):
        raise UnreadableError(
            f"--quorum {wanted.quorum} needs at least as many --witness options; give more, or "
            "lower it"
        )
    try:
        with zipfile.ZipFile(path) as bundle:
            _check(bundle, key, wanted, report)
    except EnoughError:
        report.unproven.append(f"the rest: verification stopped after {MAX_FINDINGS} findings")
    except MalformedError as error:
        report.found.append(("malformed", str(error)))
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise UnreadableError(f"the bundle cannot be read: {error}") from error
    except UnreadableError:
        raise
    except Exception as error:  # noqa: BLE001 - a malformed bundle gets a report too
        report.found.append(("malformed", f"the bundle cannot be read ({type(error).__name__})"))
    return report


def _check(bundle: zipfile.ZipFile, key: Key, wanted: Wanted, report: Report) -> None:
    _check_members(bundle)
    manifest = _manifest(bundle)
    tree = Tree(0, [])
    if manifest.get("start") is not None:
        tree = _tree_at_start(manifest["start"])
        report.before = tree.size
        report.unproven.append(f"the first {tree.size} events, which are not in the bundle")
    checkpoints = list(_checkpoints(_notes(bundle, manifest, report), key, report))
    if not checkpoints:
        report.add("unsigned", "the bundle has no checkpoint, so nothing is proven")
        return
    first, log = checkpoints[0], checkpoints[-1].log
    if report.before and (first.size, first.root) != (tree.size, tree.root()):
        report.add("forked", "the start of the bundle differs from the signed checkpoint")
    _check_label(manifest, wanted.customer, log, report)
    known = _known(wanted.seen, key, log, report)
    _check_forks([*checkpoints, *known], report)
    _check_witnesses([*checkpoints, *known], wanted, report)
    _check_events(bundle, [*checkpoints, *known], tree, log, report)
    if "opened.jsonl" in bundle.namelist():
        _check_opened(_lines(bundle, "opened.jsonl", LONGEST_LINE), report)


def _check_members(bundle: zipfile.ZipFile) -> None:
    names = bundle.namelist()
    for name in names:
        if name not in MEMBERS:
            raise MalformedError(f"the bundle has an unexpected member: {name[:80]!r}")
        if names.count(name) > 1:
            raise MalformedError(f"the bundle has the member {name} more than once")
    for name in ("manifest.json", "checkpoints.jsonl", "events.jsonl"):
        if name not in names:
            raise MalformedError(f"the bundle has no {name}")
    for each in bundle.infolist():
        if each.flag_bits & 1 or each.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise MalformedError(f"{each.filename} is encrypted or uses an unsupported compression")


def _lines(bundle: zipfile.ZipFile, name: str, longest: int) -> Iterator[bytes]:
    """Yield the lines of a member. Raises `MalformedError` if one exceeds `longest` bytes."""
    rest = b""
    for chunk in _chunks(bundle, name):
        *lines, rest = (rest + chunk).split(b"\n")
        if max(map(len, [*lines, rest])) > longest:
            raise MalformedError(f"{name} has a line of more than {longest} bytes")
        yield from lines
    if rest:
        yield rest


def _chunks(bundle: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    chunk = b"start"
    try:
        file = bundle.open(name)
    except Exception as error:
        raise MalformedError(f"{name} cannot be opened: it is damaged") from error
    with file:
        while chunk:
            try:
                chunk = file.read(CHUNK)
            except Exception as error:
                raise MalformedError(f"{name} cannot be read: it is damaged") from error
            yield chunk


def _object(line: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise MalformedError(f"{what} is not a JSON object")
    return found


def _manifest(bundle: zipfile.ZipFile) -> dict[str, Any]:
    """Read the manifest. Its labels are untrusted and compared with the signed text."""
    read = b""
    for chunk in _chunks(bundle, "manifest.json"):
        read += chunk
        if len(read) > LONGEST_MANIFEST:
            raise MalformedError(f"manifest.json has more than {LONGEST_MANIFEST} bytes")
    return _object(read, "manifest.json")


def _notes(
    bundle: zipfile.ZipFile, manifest: dict[str, Any], report: Report
) -> Iterator[tuple[str, str]]:
    """Yield each checkpoint of the bundle as its location and its note."""
    if manifest.get("start") is not None:
        yield "manifest.json: start", _note_in(manifest["start"])
    for number, line in enumerate(_lines(bundle, "checkpoints.jsonl", 2 * LONGEST_NOTE), 1):
        where = f"checkpoints.jsonl: line {number}"
        try:
            yield where, _note_in(_object(line, where))
        except MalformedError as error:
            report.add("malformed", f"{where}: {error}")


def _checkpoints(
    notes: Iterable[tuple[str, str]], key: Key, report: Report
) -> Iterator[Checkpoint]:
    """Yield the parsed checkpoints; report each unsigned or misplaced checkpoint."""
    before: Checkpoint | None = None
    for where, note in notes:
        try:
            each = Checkpoint(note, key)
        except MalformedError as error:
            report.add("malformed", f"{where}: {error}")
            continue
        before = before or each
        report.log, report.until = each.log, each.at
        report.checkpoints += 1
        if not each.is_signed:
            report.add("signature", f"{each} is not signed with this key")
        if each.log.installation != key.name:
            report.add("forked", f"{each} is for {each.log.installation}, the key for {key.name}")
        elif each.log != before.log:
            report.add("forked", f"{each} is for another log, {each.log}")
        if each is not before and not each.follows(before):
            report.add("replayed", f"{each} is listed after {before}")
        before = each
        yield each


def _note_in(value: Any) -> str:
    """Return the note in a JSON line or in a webhook's request body."""
    value = value if isinstance(value, dict) else {}
    data = value.get("data")
    note = value.get("note", data.get("note") if isinstance(data, dict) else None)
    if not isinstance(note, str) or not 0 < len(note) <= LONGEST_NOTE:
        raise MalformedError("it contains no checkpoint")
    return note


def _tree_at_start(start: Any) -> Tree:
    """Return the tree at the start of a bundle."""
    size = start.get("size") if isinstance(start, dict) else None
    edge = start.get("edge") if isinstance(start, dict) else None
    if type(size) is not int or not 0 < size < 1 << 63 or not isinstance(edge, list):
        raise MalformedError("manifest.json: start has no valid size or edge")
    try:
        nodes = [base64.b64decode(node, validate=True) for node in edge[:64]]
    except (ValueError, TypeError) as error:
        raise MalformedError("manifest.json: start.edge is not Base64") from error
    if len(edge) != size.bit_count() or any(len(node) != len(sha256()) for node in nodes):
        raise MalformedError(f"manifest.json: start.edge does not match a tree of {size} events")
    return Tree(size, nodes)


def _check_label(manifest: dict[str, Any], customer: str, log: Log, report: Report) -> None:
    """Compare the manifest's labels and the expected customer with the signed text."""
    labels = {"origin": str(log), "customer": log.customer, "stream": log.stream}
    for name, signed in labels.items():
        if manifest.get(name) != signed:
            label = str(manifest.get(name))[:80]
            what = f"manifest.json has the {name} {label!r}, but the signed text has {signed!r}"
            report.add("relabelled", what)
    if customer and customer != log.customer:
        report.add("relabelled", f"this is the log of {log.customer}, but {customer} was expected")


def notes_of(text: str, name: str) -> Iterator[str]:
    """Yield the notes in a text: JSON lines with one note each, or plain notes.

    Raises `UnreadableError` if a JSON line contains no note.
    """
    note: list[str] = []
    for line in [*text.splitlines(), "{}"]:
        start = line.startswith("{") or (note and note[-1].startswith("\u2014"))
        if start and not line.startswith("\u2014") and any(note):
            yield "".join(f"{each}\n" for each in note)
            note = []
        if line.startswith("{") and line != "{}":
            try:
                yield _note_in(_object(line.encode(), name))
            except MalformedError as error:
                raise UnreadableError(f"{name} has a line without a checkpoint") from error
        elif line != "{}" and (line or note):
            note.append(line)


def _known(seen: Iterable[str], key: Key, log: Log, report: Report) -> list[Checkpoint]:
    """Return the checkpoints stored elsewhere that belong to this customer's log."""
    found, others = [], 0
    for note in seen:
        try:
            of = log_of(note.partition("\n")[0])
            ours = (of.installation, of.customer) == (log.installation, log.customer)
            each = Checkpoint(note, key) if ours else None
        except MalformedError as error:
            raise UnreadableError(
                f"a checkpoint given with --seen cannot be read: {error}"
            ) from error
        if each is None:
            others += 1
        elif not each.is_signed:
            report.add("signature", f"{each}, given with --seen, is not signed with this key")
        elif each.log != log:
            report.add("forked", f"{each}, given with --seen, is for another log, {each.log}")
        else:
            found.append(each)
    report.seen = len(found)
    if not found:
        given = (
            f"the {others} checkpoints given with --seen are for other logs"
            if others
            else ("no checkpoint that was stored elsewhere was given (--seen)")
        )
        report.unproven.append(f"that no newer event was omitted: {given}")
    return found


def _check_forks(checkpoints: list[Checkpoint], report: Report) -> None:
    """Report two signed trees of the same size, which prove that the log was forked."""
    roots: dict[int, bytes] = {}
    for each in checkpoints:
        for size, root in ((each.size, each.root), each.before) if each.is_signed else ():
            if size and roots.setdefault(size, root) != root:
                report.add("forked", f"{each} contradicts another one of {size} events")


def _check_witnesses(checkpoints: list[Checkpoint], wanted: Wanted, report: Report) -> None:
    """Find the newest checkpoint with cosignatures of enough witnesses."""
    if not wanted.witnesses:
        report.unproven.append(
            "that others received the same log: no witness was given (--witness)"
        )
    quorum = wanted.quorum or len(wanted.witnesses)
    newest = sorted(checkpoints, key=lambda each: (each.size, each.at), reverse=True)
    for each in newest if quorum else ():
        at = sorted((key.cosigned(each.note, each.text) for key in wanted.witnesses), reverse=True)
        if each.is_signed and each.log == report.log and at[quorum - 1]:
            report.witnessed, report.witnessed_at = each.size, at[quorum - 1]
            break
    required = f"{quorum} of the {len(wanted.witnesses)} witnesses given"
    if quorum and not report.witnessed_at:
        report.add("unwitnessed", f"no checkpoint is cosigned by {required}")
    elif quorum and report.witnessed < newest[0].size:
        behind = newest[0].size - report.witnessed
        report.unproven.append(f"that {required} have cosigned the newest {behind} events")
    last = report.witnessed_at if quorum else report.until
    if last < wanted.until:
        kind = "cosignature" if quorum else "checkpoint"
        shown = _moment(last) if last else "none"
        report.add("stale", f"the last {kind} is older than {_moment(wanted.until)}: {shown}")


def _check_events(
    bundle: zipfile.ZipFile,
    checkpoints: list[Checkpoint],
    tree: Tree,
    log: Log,
    report: Report,
) -> None:
    whole = tree.size == 0
    chains, calls, people = Chains(report, whole=whole), Calls(report), People(report)
    due = sorted(checkpoints, key=lambda each: each.size)
    maximum = _maximum(due, tree.size)
    place = _passed(due, 0, tree, report, tree.size)
    last_verified = tree.size
    for line in _lines(bundle, "events.jsonl", LONGEST_LINE):
        if tree.size >= maximum:
            report.add("unsigned", "no checkpoint covers the newest events")
            break
        tree.append(line)
        report.events += 1
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, dict) and "producer" in event:
            _check_customer(event, tree.size, log, report)
            report.happened(event.get("at"))
            chains.take(event, line, tree.size)
            calls.take(event, tree.size)
            people.take(event, line)
        if place < len(due) and due[place].size <= tree.size:
            place = _passed(due, place, tree, report, last_verified)
            last_verified = tree.size
    for each in due[place:]:
        what = f"{each} covers more than the {tree.size} events of the bundle"
        report.add("missing", what)
    chains.end()
    calls.end(report.until)
    people.end()
    report.calls = calls.started


def _maximum(due: list[Checkpoint], started: int) -> int:
    """Return the maximum number of events to read: the size of the largest signed checkpoint."""
    signed = [each.size for each in due if each.is_signed]
    return max(signed) if signed else min(due[-1].size, started + MAX_UNSIGNED)


def _check_customer(event: dict[str, Any], number: int, log: Log, report: Report) -> None:
    if event.get("customer") != log.customer:
        shown = str(event.get("customer"))[:80]
        report.add("relabelled", f"event {number} belongs to the customer {shown!r}")


def _passed(due: list[Checkpoint], place: int, tree: Tree, report: Report, verified: int) -> int:
    """Compare the tree with the checkpoints of its size; return the next index."""
    while place < len(due) and due[place].size <= tree.size:
        each = due[place]
        if each.size == tree.size and each.root != tree.root():
            what = f"{each} does not match: events {verified + 1} to {each.size} were changed"
            report.add("tree", what)
        place += 1
    return place


# -- the command -----------------------------------------------------------------------------


def checkpoints_in(places: Iterable[str]) -> Iterator[str]:
    """Yield the checkpoints in files, and in the files of directories."""
    for place in map(Path, places):
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        for file in files:
            if file == place or (file.is_file() and not file.name.startswith(".")):
                if file.stat().st_size > LONGEST_LINE:
                    raise UnreadableError(f"{file} is larger than {LONGEST_LINE} bytes; split it")
                yield from notes_of(file.read_text("utf-8"), str(file))


def _time(text: str) -> float:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise UnreadableError(f"{text!r} is not a time; use 2026-11-01T12:00:00, in UTC") from error
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _arguments(words: list[str] | None) -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("bundle", help="the file that `toolbus audit export` wrote")
    parser.add_argument(
        "--key", required=True, help="the log's public key, from a source you trust"
    )
    parser.add_argument(
        "--seen",
        action="append",
        default=[],
        metavar="FILE|DIR",
        help="checkpoints that you stored elsewhere; repeatable",
    )
    parser.add_argument(
        "--witness",
        action="append",
        default=[],
        metavar="KEY",
        help="the key of a witness whose cosignature is required; repeatable",
    )
    parser.add_argument(
        "--quorum",
        type=int,
        default=0,
        metavar="N",
        help="the number of witnesses that must have cosigned; default: all",
    )
    parser.add_argument("--customer", default="", help="the customer whose log is expected")
    parser.add_argument(
        "--until",
        default="",
        metavar="TIME",
        help="fail if the last checkpoint (--witness: cosignature) was made before this UTC time",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")  # fmt: skip
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Verify a bundle; return 0 if it is valid, 1 if it is not, 2 if it cannot be verified."""
    options = _arguments(words)
    try:
        wanted = Wanted(
            checkpoints_in(options.seen),
            tuple(Key(each, COSIGNED) for each in dict.fromkeys(options.witness)),
            max(options.quorum, 0),
            options.customer,
            _time(options.until) if options.until else 0.0,
        )
        report = verify(options.bundle, options.key, wanted=wanted)
    except (UnreadableError, OSError, UnicodeDecodeError) as error:
        result = {"valid": False, "findings": [{"kind": "unreadable", "what": str(error)}]}
        output = (
            json.dumps(result, indent=2)
            if options.json
            else f"NOT VERIFIED: {_printable(str(error))}"
        )
        sys.stdout.write(f"{output}\n")
        return 2
    sys.stdout.write(json.dumps(report.text(), indent=2) + "\n" if options.json else str(report))
    return 1 if report.found else 0


if __name__ == "__main__":
    sys.exit(main())
