"""Sessions: every replica serves them, to their principal only, and none after its end."""

from typing import Any

import msgspec
import pytest

from toolbus_common.contracts import SessionMessage
from toolbus_common.crypto.key_file import KEY_BYTES
from toolbus_ingress.sessions import session_store as rules
from toolbus_ingress.sessions.sealed_claims import ClaimSealer, SessionClaims
from toolbus_ingress.sessions.session_store import Session, Sessions, capabilities_of

KEY_DIGEST, OTHER = "a" * 64, "b" * 64
KEY = b"k" * KEY_BYTES


class Replicas:
    """Replicas of ingress that receive each other's messages, and their own, as on the bus."""

    def __init__(self, count: int = 2, key: bytes = KEY) -> None:
        self.all = [Sessions(ClaimSealer(key), self.publish) for _ in range(count)]
        self.messages: list[SessionMessage] = []

    def publish(self, message: SessionMessage) -> None:
        self.messages.append(message)
        for each in self.all:
            each.receive(SessionMessage.decode(message.encode()))


def started(sessions: Sessions, capabilities: Any = None) -> Session:
    return sessions.begin(KEY_DIGEST, "2025-11-25", capabilities)


def found(sessions: Sessions, session: Session, key_digest: str = KEY_DIGEST) -> Session | None:
    return sessions.find(session.token.encode(), key_digest)


def test_a_session_opens_in_another_replica_with_the_same_key() -> None:
    here, there = Replicas().all
    session = started(here, {"elicitation": {"url": {}}, "roots": {}})
    opened = found(there, session)
    assert opened is not None
    assert opened is not session
    assert opened.claims == session.claims
    assert opened.can("elicitation", "url")
    assert found(there, session) is opened, "the second request finds the same session"


def test_a_session_does_not_open_with_another_key() -> None:
    session = started(Replicas().all[0])
    assert found(Replicas(key=b"j" * KEY_BYTES).all[0], session) is None


def test_a_session_opens_for_no_other_principal_in_any_replica() -> None:
    here, there = Replicas().all
    session = started(here)
    assert found(here, session, OTHER) is None
    assert found(there, session, OTHER) is None
    assert found(there, session) is not None


def test_the_end_of_a_session_cancels_its_calls_in_every_replica() -> None:
    here, there = Replicas().all
    session = started(here)
    opened = found(there, session)
    assert opened is not None
    taken_back: list[bytes] = []
    there.on_cancelled = lambda _session, request_id: taken_back.append(request_id)
    opened.in_flight |= {b"1": "call-1", b'"a"': "call-2"}
    here.end(session)
    assert taken_back == [b"1", b'"a"']


@pytest.mark.parametrize("token", [b"", b"x", b"\xff\xfe", b"A" * 200, b"A" * 70_000])
def test_an_invalid_id_finds_no_session(token: bytes) -> None:
    assert Replicas().all[0].find(token, KEY_DIGEST) is None


@pytest.mark.parametrize("seen_there", [True, False], ids=["seen", "never seen"])
def test_a_session_ended_in_one_replica_is_ended_in_all(*, seen_there: bool) -> None:
    here, there = Replicas().all
    session = started(here)
    if seen_there:
        assert found(there, session)
    here.end(session)
    assert found(here, session) is None
    assert found(there, session) is None


def test_the_end_of_a_session_is_reported_once_in_each_replica() -> None:
    here, there = Replicas().all
    ends: list[str] = []
    here.on_ended = there.on_ended = ends.append
    session = started(here)
    here.end(session)
    assert ends == [session.sid] * 2


def test_a_message_about_an_ended_session_does_not_revive_it() -> None:
    here, there = Replicas().all
    session = started(here)
    here.end(session)
    there.receive(SessionMessage(session=session.sid, what="level", about="info"))
    assert found(there, session) is None
    assert not there._pending


def test_an_ended_session_leaves_no_state() -> None:
    here, there = Replicas().all
    for _ in range(50):
        session = started(here)
        assert found(there, session)
        here.end(session)
    for each in (here, there):
        assert not each._known
        assert not each._by_sid
        assert not each._pending


def test_the_number_of_remembered_ends_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_ENDED", 3)
    here = Replicas(1).all[0]
    ended = [started(here) for _ in range(5)]
    for session in ended:
        here.end(session)
    assert [found(here, session) is None for session in ended[-3:]] == [True] * 3
    assert len(here._ended) == 3


def test_an_expired_session_is_ended() -> None:
    here = Replicas().all[0]
    claims = SessionClaims("s", KEY_DIGEST, "2025-11-25", "{}", 1.0)
    assert here.find(ClaimSealer(KEY).close(claims).encode(), KEY_DIGEST) is None


def test_an_expired_known_session_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Replicas().all[0]
    session = started(here)
    assert found(here, session) is session
    monkeypatch.setattr(rules, "time", lambda: session.claims.expires + 1)
    assert found(here, session) is None


@pytest.mark.parametrize("declared", [None, [], "x", 1, {"unheard": {}}])
def test_empty_capabilities_are_stored_as_none(declared: Any) -> None:
    session = started(Replicas().all[0], declared)
    assert session.capabilities == "{}"
    assert capabilities_of(session) == capabilities_of(None) == "{}"


def test_oversized_capabilities_are_stored_as_none() -> None:
    session = started(Replicas().all[0], {"roots": {}, "sampling": {"x": "y" * 2000}})
    assert session.declared == {}
    assert len(session.token) < 4096


def test_only_capabilities_that_servers_use_are_stored() -> None:
    capabilities = {"roots": {"listChanged": True}, "experimental": {"x": "y" * 2000}}
    session = started(Replicas().all[0], capabilities)
    assert msgspec.json.decode(session.capabilities) == {"roots": {"listChanged": True}}


@pytest.mark.parametrize(
    ("declared", "path", "able"),
    [
        ({"elicitation": {}}, ("elicitation",), True),
        ({"elicitation": {}}, ("elicitation", "url"), False),
        ({"elicitation": {"url": {}}}, ("elicitation", "url"), True),
        ({"elicitation": {"url": None}}, ("elicitation", "url"), False),
        ({"elicitation": False}, ("elicitation",), False),
        ({"elicitation": True}, ("elicitation", "url"), False),
        ({}, ("roots",), False),
    ],
)
def test_a_client_supports_what_it_declared(
    declared: dict[str, Any], path: tuple[str, ...], *, able: bool
) -> None:
    assert started(Replicas().all[0], declared).can(*path) is able


@pytest.mark.parametrize("seen_there", [True, False], ids=["seen", "never seen"])
def test_level_uris_and_late_capabilities_are_shared(*, seen_there: bool) -> None:
    here, there = Replicas().all
    session = started(here)
    if seen_there:
        found(there, session)
    here.update(session, "level", "warning")
    here.update(session, "subscribed", "file:///a")
    here.update(session, "subscribed", "file:///b")
    here.update(session, "unsubscribed", "file:///a")
    here.set_capabilities(session, {"sampling": {}})
    opened = found(there, session)
    assert opened is not None
    assert (opened.level, opened.uris) == ("warning", {"file:///b"})
    assert opened.can("sampling")
    assert capabilities_of(opened) == capabilities_of(session) == '{"sampling":{}}'


def test_the_uris_of_a_session_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_URIS", 3)
    here, there = Replicas().all
    session = started(here)
    for number in range(10):
        here.update(session, "subscribed", f"file:///{number}")
    opened = found(there, session)
    assert opened is not None
    assert len(session.uris) == len(opened.uris) == 3


def test_a_cancellation_reaches_the_replica_with_the_request() -> None:
    here, there = Replicas().all
    cancelled: list[tuple[str, bytes]] = []
    there.on_cancelled = lambda session, about: cancelled.append((session.sid, about))
    session = started(here)
    found(there, session)
    here.update(session, "cancelled", '"7"')
    assert cancelled == [(session.sid, b'"7"')]


def test_a_cancellation_is_applied_once_in_the_replica_that_publishes_it() -> None:
    (here, _) = Replicas().all
    cancelled: list[bytes] = []
    here.on_cancelled = lambda _session, about: cancelled.append(about)
    here.update(started(here), "cancelled", "7")
    assert cancelled == [b"7"], "a second one could cancel a later request of that id"


def test_a_cancellation_does_not_affect_a_later_request() -> None:
    here, there = Replicas().all
    session = started(here)
    here.update(session, "cancelled", "7")
    assert not there._pending


def test_a_response_stops_at_the_replica_that_waits_for_it() -> None:
    replicas = Replicas()
    here, there = replicas.all
    session = started(here)
    taken: list[bytes] = []

    def take(_sid: str, body: bytes) -> bool:
        taken.append(body)
        return True

    there.on_response = take
    here.update(session, "response", "", b'{"id":1}')
    assert taken == [b'{"id":1}'], "it was published on the bus"
    there.update(session, "response", "", b'{"id":2}')
    assert taken == [b'{"id":1}', b'{"id":2}']
    assert len(replicas.messages) == 1, "a local response needs no bus"


def test_the_longest_unused_session_is_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_KNOWN", 3)
    here = Replicas(1).all[0]
    kept, lost, *_ = known = [started(here) for _ in range(3)]
    for session in known:
        here.update(session, "level", "error")
    assert found(here, kept) is kept
    newest = started(here)
    assert found(here, kept) is kept
    assert found(here, newest) is newest
    again = found(here, lost)
    assert again is not None, "a forgotten session opens again from its id"
    assert again.level == ""
    assert len(here._known) == len(here._by_sid) == 3


def test_messages_about_unknown_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_KNOWN", 3)
    here = Replicas(1).all[0]
    for number in range(10):
        here.receive(SessionMessage(session=f"s{number}", what="level", about="info"))
    assert list(here._pending) == ["s7", "s8", "s9"]
