"""Personal data in events: pseudonyms, sealed content, and what remains without the key."""

import hmac
import json
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest

from harness.audit.events import allowed, completed
from harness.audit.people_bucket import MemoryBucket, people
from toolbus_common.config_store.diff import Change as Difference
from toolbus_common.config_store.diff import summary_of
from toolbus_common.contracts import ApprovalRequested, CallDenied, ConfigChanged, Event, KeyCreated
from toolbus_common.errors import BusDownError
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.messaging.outbox import Outbox
from toolbus_common.nats.connection import Envelope
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.privacy.key_store import ERASED, PersonKeys
from toolbus_common.privacy.person_key import TOKEN, PersonKey


class Writing:
    """A writer of events that seals, and the lines it has written."""

    def __init__(self, directory: Path) -> None:
        self.lines: list[bytes] = []
        self.bucket = MemoryBucket()
        self.people = people(directory, self.bucket)
        self.writer = EventPublisher(self._publish, Outbox(directory / "events", 1 << 20))
        self.writer.people = self.people

    async def _publish(self, envelope: Envelope) -> None:
        self.lines += envelope.payload.split(b"\n")

    async def published(self, event: Event) -> dict[str, Any]:
        """An event as it was written."""
        await self.writer.publish_durable(event)
        found: dict[str, Any] = json.loads(self.lines[-1])
        return found


@pytest.fixture
def writing(tmp_path: Path) -> Writing:
    return Writing(tmp_path)


async def test_an_event_names_a_person_by_a_pseudonym_and_its_content_is_sealed(
    writing: Writing,
) -> None:
    line = await writing.published(allowed(user="ann", arguments='{"to": "bo"}'))
    assert TOKEN.fullmatch(line["user"])
    assert line["arguments"].startswith(line["user"] + ".")
    assert not any(word in b"".join(writing.lines) for word in (b"ann", b"bo\\"))
    assert writing.people.reveal(line["user"]) == "ann"
    assert writing.people.reveal(line["arguments"]) == '{"to": "bo"}'


async def test_a_known_person_needs_no_request_to_the_bucket(writing: Writing) -> None:
    first = await writing.published(allowed(user="ann"))
    request = writing.bucket.reads
    second = await writing.published(allowed(user="ann", arguments="{}"))
    assert (writing.bucket.reads, second["user"]) == (request, first["user"])


async def test_an_event_without_a_person_needs_no_key(writing: Writing) -> None:
    await writing.published(allowed())
    await writing.published(completed())
    assert writing.bucket.reads == 0


async def test_content_without_a_user_is_sealed_as_the_keys(writing: Writing) -> None:
    line = await writing.published(allowed(arguments='{"to": "bo"}'))
    assert line["user"] == ""
    assert line["arguments"].startswith(writing.people.pseudonym("key:bot"))


async def test_the_same_text_is_never_sealed_alike(writing: Writing) -> None:
    texts = [
        (await writing.published(allowed(user="ann", arguments="{}")))["arguments"] for _ in "ab"
    ]
    assert texts[0] != texts[1]


async def test_a_denial_that_mentions_a_user_does_not_name_them(writing: Writing) -> None:
    event = allowed(user="ann").model_dump() | {
        "code": "budget", "reason": "The budget of user:ann is spent.",
    }  # fmt: skip
    line = await writing.published(CallDenied.model_validate(event))
    assert line["reason"] == f"The budget of {line['user']} is spent."


async def test_approvers_and_administrators_are_persons_too(writing: Writing) -> None:
    base = allowed(user="ann").model_dump()
    request = ApprovalRequested.model_validate(
        base | {"approval": "a1", "cause": "user:ann", "expires": 1.0, "arguments": '{"q": 1}'}
    )
    line = await writing.published(request)
    assert line["cause"] == line["user"] == writing.people.pseudonym("user:ann")
    assert writing.people.reveal(line["arguments"]) == '{"q": 1}'
    made = KeyCreated(id="k", at=1.0, customer="acme", key="bot", by="bo")
    assert (await writing.published(made))["by"] == writing.people.pseudonym("operator:bo")


async def test_an_entry_of_a_person_is_sealed_as_theirs_in_the_event_that_it_changed(
    writing: Writing,
) -> None:
    def changed(kind: str, name: str, after: str) -> ConfigChanged:
        return ConfigChanged(id="c", at=1.0, customer="default", kind=kind, name=name, after=after)

    user = await writing.published(changed("users", "ann", '{"customer": "acme"}'))
    key = await writing.published(changed("keys", "bot", '{"user": "ann", "tools": ["*"]}'))
    assert user["name"] == writing.people.pseudonym("user:ann")
    assert user["after"].startswith(user["name"])
    assert (key["name"], key["after"].startswith(user["name"])) == ("bot", True)
    assert (await writing.published(changed("teams", "ops", "{}")))["after"] == "{}"


def test_a_summary_of_applied_changes_counts_persons_and_names_the_rest() -> None:
    names = (("users", "ann"), ("users", "bo"), ("teams", "ops"))
    different = [Difference("+", section, name, {}) for section, name in names]
    assert summary_of(different) == {"users": 2, "teams.ops": "+"}


async def test_without_person_keys_the_event_is_published_without_personal_data(
    writing: Writing,
) -> None:
    writing.bucket.up = False
    line = await writing.published(allowed(user="ann", arguments='{"to": "bo"}'))
    assert (line["user"], line["arguments"], line["seq"]) == ("~", "", 1)


async def test_events_that_wait_for_a_key_are_delivered_before_a_writer_closes(
    writing: Writing,
) -> None:
    writing.writer.publish(allowed(user="ann"))
    await writing.writer.close(30.0)
    assert len(writing.lines) == 1


async def test_an_erased_person_gets_another_pseudonym_and_old_data_stays_sealed(
    writing: Writing, tmp_path: Path
) -> None:
    line = await writing.published(allowed(user="ann", arguments="{}"))
    entry = writing.people.entry_of("user:ann")
    writing.bucket.entries.pop(entry)
    writing.people.apply_change(Change(entry, None, 9))
    assert writing.people.reveal(line["user"]) == line["user"]
    assert writing.people.reveal(line["arguments"]) == ERASED
    assert writing.people.known("user:ann") is None
    again = await writing.published(allowed(user="ann"))
    assert again["user"] != line["user"]
    assert people(tmp_path, writing.bucket).reveal(line["arguments"]) == ERASED


async def test_replicas_agree_about_a_new_person(tmp_path: Path) -> None:
    bucket = MemoryBucket()
    first, second = people(tmp_path, bucket), people(tmp_path, bucket)
    await first.learn(["user:ann"])
    await second.learn(["user:ann"])
    assert first.pseudonym("user:ann") == second.pseudonym("user:ann")


async def test_a_service_with_another_master_key_seals_nothing_and_reports_it(
    tmp_path: Path,
) -> None:
    bucket = MemoryBucket()
    await people(tmp_path, bucket).learn(["user:ann"])
    other = people(tmp_path / "other", bucket)
    with pytest.raises(BusDownError, match="give every service the same file"):
        await other.learn(["user:bo"])
    assert "people.key" in other.fault


async def test_the_bucket_holds_neither_names_nor_keys_in_the_plain(tmp_path: Path) -> None:
    bucket = MemoryBucket()
    book = people(tmp_path, bucket)
    await book.learn(["user:ann"])
    person = book.known("user:ann")
    assert person is not None
    kept = b"".join(key.encode() + value for key, (value, _) in bucket.entries.items())
    assert b"ann" not in kept
    assert person.key not in kept


def test_revealed_text_inside_json_stays_valid_json(tmp_path: Path) -> None:
    book = PersonKeys(tmp_path / "people.key")
    ann = PersonKey.new("user:ann")
    value = book._master.seal(ann)
    book.apply_change(Change(book.entry_of("user:ann"), value, 1))
    detail = json.dumps({"user": ann.pseudonym, "arguments": ann.seal('{"q": "a\\nb"}')})
    assert json.loads(book.reveal(detail)) == {"user": "ann", "arguments": '{"q": "a\\nb"}'}
    assert book.revealed([1, {"a": (ann.pseudonym,)}]) == [1, {"a": ("ann",)}]


@pytest.mark.parametrize("name", ["content", "name"])
def test_opened_text_is_proven_by_its_salt_only(name: str) -> None:
    ann = PersonKey.new("user:ann")
    token = ann.pseudonym if name == "name" else ann.seal("a text")
    opened = ann.open(token)
    assert opened is not None
    sealed = token.partition(".")[2] or token[1:]
    committed = urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))[:32]
    proof = hmac.digest(opened.salt, opened.text.encode(), "sha256")
    assert proof[: len(committed)] == committed


@pytest.mark.parametrize("damage", ["", ".", ".AAAA", ".!!"])
def test_damaged_content_opens_as_nothing(damage: str) -> None:
    ann = PersonKey.new("user:ann")
    if damage in ("", "."):
        token = ann.seal("a text")
        damage = "." + token.partition(".")[2][:-4] + "AAAA"
    assert ann.open(ann.pseudonym + damage) is None
    assert PersonKey.new("user:ann").open(ann.seal("a text")) is None
