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
from toolbus_common.privacy.person_key import TOKEN, Master, PersonKey


class SealingPublisher:
    """A sealing event publisher and the lines it published."""

    def __init__(self, directory: Path) -> None:
        self.lines: list[bytes] = []
        self.bucket = MemoryBucket()
        self.people = people(directory, self.bucket)
        self.writer = EventPublisher(self._publish, Outbox(directory / "events", 1 << 20))
        self.writer.people = self.people

    async def _publish(self, envelope: Envelope) -> None:
        self.lines += envelope.payload.split(b"\n")

    async def published(self, event: Event) -> dict[str, Any]:
        """Publish an event; return its line."""
        await self.writer.publish_durable(event)
        found: dict[str, Any] = json.loads(self.lines[-1])
        return found


@pytest.fixture
def publisher(tmp_path: Path) -> SealingPublisher:
    return SealingPublisher(tmp_path)


async def test_an_event_names_a_person_by_a_pseudonym_and_its_content_is_sealed(
    publisher: SealingPublisher,
) -> None:
    line = await publisher.published(allowed(user="ann", arguments='{"to": "bo"}'))
    assert TOKEN.fullmatch(line["user"])
    assert line["arguments"].startswith(line["user"] + ".")
    assert not any(word in b"".join(publisher.lines) for word in (b"ann", b"bo\\"))
    assert publisher.people.reveal(line["user"]) == "ann"
    assert publisher.people.reveal(line["arguments"]) == '{"to": "bo"}'


async def test_a_known_person_needs_no_request_to_the_bucket(publisher: SealingPublisher) -> None:
    first = await publisher.published(allowed(user="ann"))
    request = publisher.bucket.reads
    second = await publisher.published(allowed(user="ann", arguments="{}"))
    assert (publisher.bucket.reads, second["user"]) == (request, first["user"])


async def test_an_event_without_a_person_needs_no_key(publisher: SealingPublisher) -> None:
    await publisher.published(allowed())
    await publisher.published(completed())
    assert publisher.bucket.reads == 0


async def test_content_without_a_user_is_sealed_as_the_keys(publisher: SealingPublisher) -> None:
    line = await publisher.published(allowed(arguments='{"to": "bo"}'))
    assert line["user"] == ""
    assert line["arguments"].startswith(publisher.people.pseudonym("key:bot"))


async def test_equal_texts_have_different_seals(publisher: SealingPublisher) -> None:
    texts = [
        (await publisher.published(allowed(user="ann", arguments="{}")))["arguments"] for _ in "ab"
    ]
    assert texts[0] != texts[1]


async def test_a_denial_that_mentions_a_user_does_not_name_them(
    publisher: SealingPublisher,
) -> None:
    event = allowed(user="ann").model_dump() | {
        "code": "budget", "reason": "The budget of user:ann is spent.",
    }  # fmt: skip
    line = await publisher.published(CallDenied.model_validate(event))
    assert line["reason"] == f"The budget of {line['user']} is spent."


async def test_approvers_and_administrators_are_persons_too(publisher: SealingPublisher) -> None:
    base = allowed(user="ann").model_dump()
    request = ApprovalRequested.model_validate(
        base | {"approval": "a1", "cause": "user:ann", "expires": 1.0, "arguments": '{"q": 1}'}
    )
    line = await publisher.published(request)
    assert line["cause"] == line["user"] == publisher.people.pseudonym("user:ann")
    assert publisher.people.reveal(line["arguments"]) == '{"q": 1}'
    made = KeyCreated(id="k", at=1.0, customer="acme", key="bot", by="bo")
    assert (await publisher.published(made))["by"] == publisher.people.pseudonym("operator:bo")


async def test_a_changed_entry_of_a_person_is_sealed_in_its_event(
    publisher: SealingPublisher,
) -> None:
    def changed(kind: str, name: str, after: str) -> ConfigChanged:
        return ConfigChanged(id="c", at=1.0, customer="default", kind=kind, name=name, after=after)

    user = await publisher.published(changed("users", "ann", '{"customer": "acme"}'))
    key = await publisher.published(changed("keys", "bot", '{"user": "ann", "tools": ["*"]}'))
    assert user["name"] == publisher.people.pseudonym("user:ann")
    assert user["after"].startswith(user["name"])
    assert (key["name"], key["after"].startswith(user["name"])) == ("bot", True)
    assert (await publisher.published(changed("teams", "ops", "{}")))["after"] == "{}"


def test_a_summary_of_applied_changes_counts_persons_and_names_the_rest() -> None:
    names = (("users", "ann"), ("users", "bo"), ("teams", "ops"))
    different = [Difference("+", section, name, {}) for section, name in names]
    assert summary_of(different) == {"users": 2, "teams.ops": "+"}


async def test_without_person_keys_the_event_is_published_without_personal_data(
    publisher: SealingPublisher,
) -> None:
    publisher.bucket.up = False
    line = await publisher.published(allowed(user="ann", arguments='{"to": "bo"}'))
    assert (line["user"], line["arguments"], line["seq"]) == ("~", "", 1)


async def test_events_waiting_for_a_key_are_delivered_before_closing(
    publisher: SealingPublisher,
) -> None:
    publisher.writer.publish(allowed(user="ann"))
    await publisher.writer.close(30.0)
    assert len(publisher.lines) == 1


async def test_an_erased_person_gets_another_pseudonym_and_old_data_stays_sealed(
    publisher: SealingPublisher, tmp_path: Path
) -> None:
    line = await publisher.published(allowed(user="ann", arguments="{}"))
    entry = publisher.people.entry_of("user:ann")
    publisher.bucket.entries.pop(entry)
    publisher.people.apply_change(Change(entry, None, 9))
    assert publisher.people.reveal(line["user"]) == line["user"]
    assert publisher.people.reveal(line["arguments"]) == ERASED
    assert publisher.people.known("user:ann") is None
    again = await publisher.published(allowed(user="ann"))
    assert again["user"] != line["user"]
    assert people(tmp_path, publisher.bucket).reveal(line["arguments"]) == ERASED


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
    entry = book.entry_of("user:ann")
    value = Master((tmp_path / "people.key").read_bytes()).seal(ann, entry)
    book.apply_change(Change(entry, value, 1))
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
