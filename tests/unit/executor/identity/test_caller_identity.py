"""Who calls, as it is declared that a server is told, and as policy tells executor."""

import time
from typing import Any

import pytest

from toolbus_common.access.config_snapshot import ConfigSnapshot, hash_of
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import Bearer, CallRequested, ProtocolFamily
from toolbus_executor.identity.claims import actor_chain
from toolbus_executor.identity.header import Identity
from toolbus_executor.identity.keys import IdentityKeys
from toolbus_policy.admission.caller_identity import identified
from toolbus_policy.ledger.admitted_call import Payer

URL, GRPC = "https://docs.test/mcp", "grpcs://shop.test:443"
KEY_DIGEST = "p" * 64
DECLARED = {
    "servers": {"docs": {"url": URL, "identity": {}}, "wiki": {"url": URL}},
    "teams": {"support": {}},
    "keys": {"bot": {"secret_hash": "0" * 64, "team": "support", "tools": ["*"]}},
    "access": {"staff": {"tools": ["*"], "team": "support"}},
}


def test_a_password_in_an_address_is_told_to_nobody() -> None:
    found = Identity("Toolbus-Identity", IdentityKeys()).at(
        "https://ann:secret@docs.test/mcp?a=b@c/"
    )
    assert found.audience == "https://docs.test/mcp"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"headers": {"toolbus-identity": "x"}}, "header Toolbus-Identity"),
        ({"tools": {"t": {"cache": {"ttl": 5, "scope": "public"}}}}, "no cache may be public"),
        ({"url": "", "command": ["x"]}, "what has an address"),
        ({"identity": {"header": "Authorization"}}, "another use"),
        ({"identity": {"header": "Mcp-Param-Who"}}, "another use"),
        ({"identity": {"header": "content-length"}}, "another use"),
        ({"identity": {"header": "X-Who: x\r\nX-More"}}, "no name"),
        (
            {"url": "", "grpc": GRPC, "identity": {"header": "X-Who-Bin"}},
            "no name gRPC takes",
        ),
        (
            {"url": "", "grpc": GRPC, "identity": {"header": "X!Who"}},
            "no name gRPC takes",
        ),
        ({"identity": {"audience": "https://other.test"}}, "audience"),
    ],
)
def test_what_would_be_told_wrongly_is_not_declared(more: dict[str, Any], why: str) -> None:
    told = {"url": URL, "identity": {}, **more}
    told = {name: tuple(each) if name == "command" else each for name, each in told.items()}
    with pytest.raises(ValueError, match=why):
        Server(**told)


def test_who_acts_now_stands_outermost() -> None:
    assert actor_chain(("now", "before", "first")) == {
        "sub": "now", "act": {"sub": "before", "act": {"sub": "first"}},
    }  # fmt: skip


def requested(server: str, key_digest: str = KEY_DIGEST) -> CallRequested:
    return CallRequested(
        call_id="c", reply_to="r", server=server, tool="t", key_digest=key_digest,
        family=ProtocolFamily.MODERN,
        deadline=0.0, traceparent="",
    )  # fmt: skip


def held(snapshot: ConfigSnapshot, *actors: str) -> str:
    """Ann holds a token, which others may act with; the name it stands for."""
    bearer = Bearer(
        access="staff", user="ann", client="c", grant="g", resource="r", handle="7f",
        ends=time.time() + 60, actors=actors,
    )  # fmt: skip
    snapshot.bearers.take(hash_of(KEY_DIGEST), bearer)
    return bearer.name


def payer(snapshot: ConfigSnapshot, name: str) -> Payer:
    principal = snapshot.principal(name)
    return Payer(principal, principal.own.team, principal.own.user, (), ())


def test_only_of_calls_to_such_a_server_policy_tells_who_makes_them() -> None:
    snapshot = ConfigSnapshot.of(Configuration.model_validate(DECLARED))
    bot = payer(snapshot, "bot")
    assert identified(snapshot, requested("wiki"), bot) is None
    assert identified(snapshot, requested("toolbus"), bot) is None
    told = identified(snapshot, requested("docs"), bot)
    assert told is not None
    assert (told.team, told.actors) == ("support", ())


@pytest.mark.parametrize("actors", [(), ("helper", "desk")], ids=["alone", "acted for"])
def test_who_acts_for_a_person_is_told(actors: tuple[str, ...]) -> None:
    snapshot = ConfigSnapshot.of(Configuration.model_validate(DECLARED))
    ann = payer(snapshot, held(snapshot, *actors))
    told = identified(snapshot, requested("docs"), ann)
    assert told is not None
    assert told.actors == actors


def test_where_a_token_has_ended_meanwhile_nobody_is_said_to_act_alone() -> None:
    snapshot = ConfigSnapshot.of(Configuration.model_validate(DECLARED))
    ann = payer(snapshot, held(snapshot, "helper"))
    told = identified(snapshot, requested("docs", "q" * 64), ann)
    assert told is not None
    assert told.actors == ("unknown",)
