"""A configuration is validated as a whole: unknown fields and impossible values are refused."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from toolbus_common.access.tool_patterns import full_name, split_name
from toolbus_common.config import Budget, Configuration, Key, Name, Period, Server
from toolbus_policy.admin.remote_restrictions import RemoteRestrictions

NAME = TypeAdapter(Name)


@pytest.mark.parametrize("name", ["git", "a", "A-1", "git_hub", "x" * 32, "0"])
def test_a_valid_name_is_accepted(name: str) -> None:
    assert NAME.validate_python(name) == name


@pytest.mark.parametrize(
    "name", ["", "_git", "-git", "git__hub", "x" * 33, "a b", "a.b", "a>", "a*"]
)
def test_a_name_unusable_as_subject_or_prefix_is_rejected(name: str) -> None:
    with pytest.raises(ValidationError):
        NAME.validate_python(name)


@given(name=st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9-]|_[A-Za-z0-9-]){0,31}", fullmatch=True))
def test_every_server_name_is_recovered_from_a_full_tool_name(name: str) -> None:
    assert split_name(full_name(name, "tool__with__separators")) == (name, "tool__with__separators")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"url": "http://h/mcp", "command": ["x"]},
        {"url": "ftp://h/mcp"},
        {"url": "http://"},
        {"command": ["x"], "headers": {"A": "b"}},
        {"url": "http://h", "timeout": 0},
        {"url": "http://h", "concurrency": 0},
        {"url": "http://h", "colour": "red"},
    ],
)
def test_an_impossible_server_is_rejected(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Server.model_validate(fields)


def test_a_budget_is_whole_micro_dollars() -> None:
    assert Budget(usd=0.1, per=Period.DAY).limit == 100_000
    assert Budget(usd=20, per=Period.MONTH).limit == 20_000_000


def test_a_key_lives_to_the_end_of_its_last_day_in_utc() -> None:
    key = Key(expires=date(2027, 1, 1))
    assert not key.expired(datetime(2027, 1, 1, 23, 59, 59, tzinfo=UTC).timestamp())
    assert key.expired(datetime(2027, 1, 2, 0, 0, 1, tzinfo=UTC).timestamp())
    assert not Key().expired(9e9)


def test_a_configuration_round_trips_through_json() -> None:
    declared = Configuration(
        servers={"git": Server(command=("mcp-server-git",), env={"LANG": "C.UTF-8"})},
        keys={"bot": Key(tools=("git__*",), secret_hash="ab", expires=date(2027, 1, 1))},
        prices={"git__git_log": 0.002},
    )
    assert Configuration.model_validate_json(declared.model_dump_json()) == declared


def test_a_hash_is_not_shown_when_a_key_is_printed() -> None:
    assert "c0ffee" not in repr(Key(secret_hash="c0ffee"))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"url": "http://a/mcp", "sse": "http://a/sse"},
        {"sse": "http://a/sse", "command": ("a",)},
        {"sse": "ftp://a"},
    ],
)
def test_a_server_has_exactly_one_kind(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Server.model_validate(fields)


def test_an_old_server_may_be_declared_with_headers() -> None:
    assert Server(sse="https://a/sse", headers={"X": "y"}).sse == "https://a/sse"


@pytest.mark.parametrize("wrong", ["2025-11-25", "handshake", "", None, 7])
def test_an_unknown_family_is_rejected_with_the_known_ones(wrong: Any) -> None:
    with pytest.raises(ValidationError, match=r"must be auto .* modern .* or legacy"):
        Server(url="https://a.example/mcp", protocol=wrong)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ({"sse": "https://a.example/sse", "protocol": "modern"}, "remove 'protocol'"),
        (
            {"openapi": "https://a.example/api.json", "protocol": "legacy"},
            "applies only to MCP servers",
        ),
    ],
)
def test_a_family_applies_to_mcp_servers_only(kind: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Server(**kind)


OWN = {"tokens": "user", "issuer": "https://login.example"}


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (
            {"url": "https://a.example/mcp", "oauth": {"env": "T"}},
            "'env' and 'file' apply only to processes",
        ),
        ({"url": "https://a.example/mcp", "oauth": {"resource": "https://b.example"}}, "remove it"),
        ({"openapi": "api.yaml", "oauth": {}}, "set 'resource' or 'base_url'"),
        (
            {"grpc": "grpcs://a.example:1", "oauth": {"tokens": "user"}},
            "set 'issuer' or 'resource'",
        ),
        ({"grpc": "grpcs://a.example:1", "oauth": {**OWN, "dpop": True}}, "DPoP is not supported"),
        ({"command": ["x"], "oauth": OWN}, "either 'env' (a variable) or 'file'"),
        ({"command": ["x"], "oauth": {**OWN, "env": "T", "file": "~/.a/t"}}, "either 'env'"),
        ({"command": ["x"], "oauth": {"env": "T"}}, "set 'issuer' or 'resource'"),
        ({"command": ["x"], "env": {"T": "1"}, "oauth": {**OWN, "env": "T"}}, "already in 'env'"),
        ({"command": ["x"], "oauth": {**OWN, "file": "~/token"}}, "directory of its own"),
        ({"command": ["x"], "oauth": {**OWN, "file": "~/.a/../token"}}, "directory of its own"),
        ({"command": ["x"], "oauth": {**OWN, "env": "A-B"}}, "name of a variable"),
        ({"command": ["x"], "oauth": {**OWN, "env": "T", "dpop": True}}, "DPoP is not supported"),
    ],
)
def test_a_server_whose_token_cannot_be_sent_is_reported_with_a_fix(
    server: dict[str, object], why: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        Server.model_validate(server)
    assert why in str(refused.value)


def test_a_token_is_not_restored_for_another_program_or_address() -> None:
    fields = {"oauth": {**OWN, "env": "T"}}
    places = {
        Server.model_validate({**fields, **program}).oauth_place
        for program in ({"command": ["a"]}, {"command": ["b"]}, {"command": ["a"], "cwd": "/b"})
    }
    assert len(places) == 3
    about = {"resource": "https://r.example", "issuer": "https://login.example"}
    apis = [{"graphql": f"https://{name}.example", "oauth": about} for name in "ab"]
    assert len({Server.model_validate(each).oauth_place for each in apis}) == 2


@pytest.mark.parametrize(
    ("anonymous", "why"),
    [
        ({"tools": ["*"], "user": "ann"}, "has 'user'"),
        ({"tools": ["*"], "rights": ["approve"]}, "has 'rights'"),
    ],
)
def test_anonymous_callers_have_no_user_and_approve_nothing(
    anonymous: dict[str, object], why: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        Configuration.model_validate({"anonymous": anonymous})
    assert why in str(refused.value)


def test_a_remote_configuration_cannot_allow_anonymous_callers_or_name_variables() -> None:
    old = Configuration.model_validate({"servers": {"s": {"command": ["allowed"]}}})
    given = {"command": ["allowed"], "oauth": {**OWN, "env": "LD_PRELOAD"}}
    new = Configuration.model_validate({"servers": {"s": given}, "anonymous": {"tools": ["*"]}})
    found = {
        problem["location"]
        for problem in RemoteRestrictions(commands=("allowed",)).violations(old, new)
    }
    assert {"anonymous", "servers.s.oauth.env"} <= found
    assert not RemoteRestrictions(commands=("allowed",), variables=("LD_*",)).violations(
        old, new.model_copy(update={"anonymous": old.anonymous})
    )
