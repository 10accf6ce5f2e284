"""The caller's identity: its configuration, and the fields policy sends to executor."""

import time
from typing import Any

import pytest

from harness.builders.calls import requested_call
from toolbus_common.access.config_snapshot import ConfigSnapshot, hash_of
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import Bearer, CallRequested
from toolbus_executor.identity.claims import actor_chain
from toolbus_executor.identity.header import Identity
from toolbus_executor.identity.keys import IdentityKeys
from toolbus_policy.admission.caller_identity import caller_identity_of
from toolbus_policy.ledger.admitted_call import Payer

URL, GRPC = "https://docs.test/mcp", "grpcs://shop.test:443"
KEY_DIGEST = "p" * 64
DECLARED = {
    "servers": {
        "docs": {"url": URL, "identity": {}},
        "wiki": {"url": URL},
        "site": {"url": URL, "oauth": {"grant": "issued"}},
    },
    "teams": {"support": {}},
    "keys": {"bot": {"secret_hash": "0" * 64, "team": "support", "tools": ["*"]}},
    "access": {"staff": {"tools": ["*"], "team": "support"}},
}


def test_a_password_in_an_address_is_never_sent() -> None:
    found = Identity("Toolbus-Identity", IdentityKeys()).at(
        "https://ann:secret@docs.test/mcp?a=b@c/"
    )
    assert found.audience == "https://docs.test/mcp"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"headers": {"toolbus-identity": "x"}}, "header 'Toolbus-Identity'"),
        ({"tools": {"t": {"cache": {"ttl": 5, "scope": "public"}}}}, "its caches cannot be public"),
        ({"url": "", "command": ["x"]}, "'identity' applies only to servers with a URL"),
        ({"identity": {"header": "Authorization"}}, "another meaning"),
        ({"identity": {"header": "Mcp-Param-Who"}}, "another meaning"),
        ({"identity": {"header": "content-length"}}, "another meaning"),
        ({"identity": {"header": "X-Who: x\r\nX-More"}}, "not a valid header name"),
        (
            {"url": "", "grpc": GRPC, "identity": {"header": "X-Who-Bin"}},
            "is not a valid header in gRPC",
        ),
        (
            {"url": "", "grpc": GRPC, "identity": {"header": "X!Who"}},
            "is not a valid header in gRPC",
        ),
        ({"identity": {"audience": "https://other.test"}}, "audience"),
    ],
)
def test_an_identity_that_cannot_be_sent_is_rejected(more: dict[str, Any], why: str) -> None:
    result = {"url": URL, "identity": {}, **more}
    result = {name: tuple(each) if name == "command" else each for name, each in result.items()}
    with pytest.raises(ValueError, match=why):
        Server(**result)


def test_the_current_actor_is_outermost() -> None:
    assert actor_chain(("now", "before", "first")) == {
        "sub": "now", "act": {"sub": "before", "act": {"sub": "first"}},
    }  # fmt: skip


def requested(server: str, key_digest: str = KEY_DIGEST) -> CallRequested:
    return requested_call(server=server, key_digest=key_digest)


def held(snapshot: ConfigSnapshot, *actors: str) -> str:
    """Store a token of ann with these actors; return its name."""
    bearer = Bearer(
        access="staff", user="ann", client="c", grant="g", resource="r", handle="7f",
        ends=time.time() + 60, actors=actors,
    )  # fmt: skip
    snapshot.bearers.take(hash_of(KEY_DIGEST), bearer)
    return bearer.name


def payer(snapshot: ConfigSnapshot, name: str) -> Payer:
    principal = snapshot.principal(name)
    return Payer(principal, principal.own.team, principal.own.user, (), ())


@pytest.mark.parametrize("server", ["docs", "site"])
def test_identity_is_sent_only_to_servers_that_request_it(server: str) -> None:
    snapshot = ConfigSnapshot.of(Configuration.model_validate(DECLARED))
    bot = payer(snapshot, "bot")
    assert caller_identity_of(snapshot, requested("wiki"), bot) is None
    assert caller_identity_of(snapshot, requested("toolbus"), bot) is None
    result = caller_identity_of(snapshot, requested(server), bot)
    assert result is not None
    assert (result.team, result.actors) == ("support", ())


@pytest.mark.parametrize("actors", [(), ("helper", "desk")], ids=["alone", "acted for"])
def test_the_actors_of_a_person_are_sent(actors: tuple[str, ...]) -> None:
    snapshot = ConfigSnapshot.of(Configuration.model_validate(DECLARED))
    ann = payer(snapshot, held(snapshot, *actors))
    result = caller_identity_of(snapshot, requested("docs"), ann)
    assert result is not None
    assert result.actors == actors


def test_an_ended_token_leaves_an_unknown_actor() -> None:
    snapshot = ConfigSnapshot.of(Configuration.model_validate(DECLARED))
    ann = payer(snapshot, held(snapshot, "helper"))
    result = caller_identity_of(snapshot, requested("docs", "q" * 64), ann)
    assert result is not None
    assert result.actors == ("unknown",)
