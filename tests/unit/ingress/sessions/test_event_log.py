"""Event logs and their store: no message twice, nothing unbounded, no other principal's."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.waits import PATIENCE
from toolbus_common.crypto.key_file import KEY_BYTES
from toolbus_ingress.sessions import event_log_store as rules
from toolbus_ingress.sessions.event_log import LARGEST, EventLog
from toolbus_ingress.sessions.event_log_store import (
    ANSWER_STREAM,
    SESSION_STREAM,
    EventLogStore,
    StreamPosition,
    parse_event_id,
)
from toolbus_ingress.sessions.sealed_claims import ClaimSealer
from toolbus_ingress.sessions.session_store import Session, Sessions

KEY_DIGEST, OTHER = "a" * 64, "b" * 64


def started(key_digest: str = KEY_DIGEST, version: str = "2025-11-25") -> Session:
    return Sessions(ClaimSealer(b"k" * KEY_BYTES), lambda _message: None).begin(
        key_digest, version, {}
    )


async def rest(event_log: EventLog, after: int = 0) -> list[bytes]:
    """Return the messages after a number of a log that has ended."""
    reader, found = event_log.read(after), []
    while (entry := await reader.next()) is not None:
        found.append(entry[1])
    reader.leave()
    return found


# -- logs ------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=20), max_size=40), st.integers(0, 50))
def test_a_resumed_reader_gets_exactly_the_later_messages(
    messages: list[bytes], after: int
) -> None:
    event_log = EventLog("a0.1")
    for message in messages:
        event_log.put(message)
    event_log.close()
    assert asyncio.run(rest(event_log, after)) == messages[after:]
    assert asyncio.run(rest(event_log, after)) == messages[after:], "reading again returns the same"


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=40), st.integers(1, 10))
def test_a_log_keeps_the_newest_messages_within_its_limits(
    messages: list[bytes], maximum: int
) -> None:
    event_log = EventLog("a0.1", maximum, bound=60)
    sizes: list[int] = []
    event_log.on_grown = sizes.append
    for message in messages:
        event_log.put(message)
    event_log.close()
    stored = asyncio.run(rest(event_log))
    assert stored == messages[-len(stored) :]
    assert 0 < len(stored) <= maximum
    assert sum(map(len, stored)) <= 60
    assert event_log.size == sum(sizes) == sum(map(len, stored))


def test_the_newest_message_is_kept_at_any_size() -> None:
    event_log = EventLog("a0.1")
    event_log.put(b"early")
    event_log.put(b"x" * (LARGEST + 1))
    event_log.close()
    assert [len(message) for message in asyncio.run(rest(event_log))] == [LARGEST + 1]


async def test_an_unnamed_log_drops_messages_once_read() -> None:
    event_log = EventLog()
    event_log.put(b"1")
    reader = event_log.read()
    assert await reader.next() == (1, b"1")
    assert (event_log.size, event_log.next(0)) == (0, None)


async def test_a_slow_reader_loses_the_oldest_messages_but_never_the_end() -> None:
    event_log = EventLog(maximum=2)
    for number in range(5):
        event_log.put(b"%d" % number)
    event_log.close()
    assert await rest(event_log) == [b"3", b"4"]


async def test_a_new_reader_replaces_the_previous_one() -> None:
    event_log = EventLog("a0.1")
    first = asyncio.create_task(event_log.read().next())
    await asyncio.sleep(0)
    second = event_log.read()
    event_log.put(b"1")
    assert await first is None
    assert await second.next() == (1, b"1")


async def test_a_paused_reader_gets_every_message_and_ends() -> None:
    event_log = EventLog("a0.1")
    reader = event_log.read()
    event_log.put(b"1")
    event_log.pause(500)
    event_log.put(b"2")
    assert [await reader.next() for _ in range(3)] == [(1, b"1"), (2, b""), None]
    event_log.close()
    assert await rest(event_log, 2) == [b"2"]


async def test_successive_pauses_share_one_number() -> None:
    event_log = EventLog("a0.1")
    for _ in range(1000):
        event_log.pause(1)
    assert event_log.last == 1


@given(st.lists(st.tuples(st.integers(1, 30), st.binary(max_size=3)), max_size=30))
def test_an_event_repeated_by_another_replica_is_read_once(
    entries: list[tuple[int, bytes]],
) -> None:
    event_log = EventLog("a0.1")
    event_log.retains = False
    newest = 0
    for number, message in entries:
        event_log.put_numbered(number, message)
        newest = max(newest, number)
    assert event_log.last == newest
    event_log.close()
    received: list[bytes] = asyncio.run(rest(event_log))
    expected, last = [], 0
    for number, message in entries:
        if number > last:
            expected.append(message)
            last = number
    assert received == expected


# -- event ids ------------------------------------------------------------------------------------


@given(st.binary(max_size=80))
def test_any_bytes_are_a_valid_event_id_or_none(event_id: bytes) -> None:
    place = parse_event_id(event_id)
    assert place is None or parse_event_id(f"{place.stream}-{place.number}".encode()) == place


@given(
    st.sampled_from([ANSWER_STREAM, SESSION_STREAM]), st.integers(0, 10**9), st.integers(0, 10**9)
)
def test_an_event_id_is_a_position(kind: str, count: int, number: int) -> None:
    stream = f"{kind}0123456789ab.{count:x}"
    place = parse_event_id(f"{stream}-{number}".encode())
    assert place == StreamPosition(stream, number)
    assert (place.replica, place.is_session_stream) == ("0123456789ab", kind == SESSION_STREAM)


@pytest.mark.parametrize(
    "odd",
    ["", "x", "-1", "a-1", "a.1-1", "a0.-1", "a0.1-", "a0.1--1", "x0.1-1", "a*.1-1", "a0.>-1",
     "a0.1-\u0661", "a0 .1-1", "a0.1.1-1", "a" + "0" * 70 + ".1-1"],
)  # fmt: skip
def test_an_invalid_event_id_finds_no_stream(odd: str) -> None:
    assert parse_event_id(odd.encode()) is None


# -- the store -------------------------------------------------------------------------------------


async def test_a_stream_is_found_in_its_own_session_only() -> None:
    event_logs, mine, other = EventLogStore(), started(), started(OTHER)
    event_log = event_logs.open(mine, ANSWER_STREAM, 10)
    assert event_logs.find(mine.sid, event_log.name) is event_log
    assert event_logs.find(other.sid, event_log.name) is None
    assert event_logs.find(started().sid, event_log.name) is None, (
        "nor in another session of the same key"
    )
    event_logs.close()


@pytest.mark.parametrize("session", [None, started(version="2024-11-05")])
def test_a_log_that_cannot_be_resumed_is_not_stored(session: Session | None) -> None:
    event_logs = EventLogStore()
    assert event_logs.open(session, ANSWER_STREAM, 10).name == ""
    assert len(event_logs) == 0


async def test_the_streams_and_bytes_of_a_principal_are_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rules, "MAX_BYTES_PER_PRINCIPAL", 100)
    event_logs, mine, other = EventLogStore(), started(), started(OTHER)
    theirs = event_logs.open(other, ANSWER_STREAM, 10)
    theirs.put(b"x" * 90)
    made = [
        event_logs.open(mine, ANSWER_STREAM, 10) for _ in range(rules.MAX_LOGS_PER_PRINCIPAL + 5)
    ]
    assert len(event_logs) == rules.MAX_LOGS_PER_PRINCIPAL + 1
    assert [event_logs.find(mine.sid, event_log.name) for event_log in made[:5]] == [None] * 5
    made[-2].put(b"y" * 60)
    made[-1].put(b"z" * 60)
    assert event_logs.find(mine.sid, made[-2].name) is None
    assert event_logs.find(mine.sid, made[-1].name) is made[-1]
    assert event_logs.find(other.sid, theirs.name) is theirs
    event_logs.close()
    assert (len(event_logs), event_logs._size, event_logs._usage) == (0, 0, {})


async def test_the_bytes_of_all_principals_are_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rules, "MAX_LOGS", 3)
    event_logs = EventLogStore()
    sessions = [started(f"{number:064}") for number in range(5)]
    made = [(session, event_logs.open(session, ANSWER_STREAM, 10)) for session in sessions]
    found = [event_logs.find(session.sid, event_log.name) for session, event_log in made]
    assert found == [None, None, *(event_log for _, event_log in made[2:])]
    event_logs.close()


async def test_a_stream_being_read_is_evicted_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rules, "MAX_LOGS_PER_PRINCIPAL", 2)
    event_logs, session = EventLogStore(), started()
    first, second = (event_logs.open(session, ANSWER_STREAM, 10) for _ in range(2))
    reader = first.read()
    event_logs.open(session, ANSWER_STREAM, 10).read()
    assert event_logs.find(session.sid, second.name) is None
    assert second.ended
    event_logs.open(session, ANSWER_STREAM, 10)
    assert event_logs.find(session.sid, first.name) is None
    first.put(b"still")
    assert await reader.next() == (1, b"still")
    reader.leave()
    assert first.ended, "the log is removed with its reader"
    event_logs.close()


async def test_an_unread_log_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    event_logs, session = EventLogStore(), started()
    event_log = event_logs.open(session, SESSION_STREAM, 10)
    event_log.read().leave()
    (stored,) = event_logs._logs.values()
    assert stored.expiry is not None
    reader = event_log.read()
    assert stored.expiry is None, "a new reader gets it"
    monkeypatch.setattr(rules, "KEEP_SECONDS", 0.0)
    ended = asyncio.Event()
    event_log.on_ended = ended.set
    reader.leave()
    async with asyncio.timeout(PATIENCE):
        await ended.wait()
    assert len(event_logs) == 0


async def test_the_logs_of_an_ended_session_are_removed() -> None:
    event_logs, session, other = EventLogStore(), started(), started()
    gone, stays = (
        event_logs.open(session, ANSWER_STREAM, 10),
        event_logs.open(other, ANSWER_STREAM, 10),
    )
    event_logs.remove_session(session.sid)
    assert event_logs.find(session.sid, gone.name) is None
    assert event_logs.find(other.sid, stays.name) is stays
    event_logs.close()
