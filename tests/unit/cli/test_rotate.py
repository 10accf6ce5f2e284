"""Rotation of shared keys in files: every stage, with replicas that have not restarted yet."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from toolbus_cli.app import built
from toolbus_cli.commands.operate.rotate import KEYS
from toolbus_common.config_store.literal_secrets import create_encryption_keys
from toolbus_common.crypto.key_file import accepted_keys, load_key
from toolbus_common.nats.sealed_records import Records
from toolbus_common.service.shared_keys import SharedKeys
from toolbus_ingress.sessions.sealed_claims import ClaimSealer, SessionClaims

STAGES = ("prepare", "switch", "finish")
SESSION = SessionClaims("s", "p", "2025-11-25", "{}", 0.0)


def run(state: Path, *words: str) -> tuple[int, str]:
    ended = CliRunner().invoke(built(), ["rotate", *words, "--state-dir", str(state)])
    return ended.exit_code, ended.output + str(ended.exception or "")


def sealer(path: Path) -> ClaimSealer:
    """Return what a replica that starts now uses."""
    return ClaimSealer(*accepted_keys(path))


def test_replicas_of_neighbouring_stages_accept_each_others_sessions(tmp_path: Path) -> None:
    path = tmp_path / "client-state.key"
    load_key(path)
    earlier = sealer(path)
    first = earlier.close(SESSION)
    for stage in STAGES:
        assert run(tmp_path, "client-state", "--stage", stage)[0] == 0
        later = sealer(path)
        assert later.open(earlier.close(SESSION), SessionClaims) == SESSION
        assert earlier.open(later.close(SESSION), SessionClaims) == SESSION
        earlier = later
    assert earlier.open(first, SessionClaims) is None
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_records_stay_readable_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "policy.key"
    sealed = Records.at("tb_tasks", path).seal("one", b"record")
    for stage in STAGES[:2]:
        assert run(tmp_path, "policy", "--stage", stage)[0] == 0
        assert Records.at("tb_tasks", path).open("one", sealed) == b"record"
    assert Records.at("tb_tasks", path).seal("one", b"record")[:20] != sealed[:20]


def test_every_replica_of_a_rotation_agrees_about_the_key_in_use(tmp_path: Path) -> None:
    """Check what a replica compares at its start: it must accept the stored key."""
    path = tmp_path / "policy.key"
    load_key(path)
    known = []
    for stage in STAGES:
        before = fingerprints(path)
        run(tmp_path, "policy", "--stage", stage)
        known.append(before[0] in fingerprints(path) and fingerprints(path)[0] in before)
    assert known == [True, True, True]


def fingerprints(path: Path) -> list[str]:
    keys = SharedKeys()
    keys.add("policy", *accepted_keys(path))
    return keys._fingerprints["policy"]


def test_stages_are_refused_out_of_order(tmp_path: Path) -> None:
    assert "There is no key file" in run(tmp_path, "policy")[1]
    assert "There is no state directory" in run(tmp_path / "x", "encryption")[1]
    load_key(tmp_path / "policy.key")
    assert "run '--stage prepare' first" in run(tmp_path, "policy", "--stage", "switch")[1]
    run(tmp_path, "policy")
    key = (tmp_path / "policy.next.key").read_bytes()
    assert run(tmp_path, "policy")[0] == 0
    assert (tmp_path / "policy.next.key").read_bytes() == key
    assert "run '--stage switch' first" in run(tmp_path, "policy", "--stage", "finish")[1]
    assert "only client-state, policy, oauth, people" in run(tmp_path, "evidence")[1]


def test_a_switch_can_be_repeated_within_the_second_in_which_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "policy.key"
    monkeypatch.setattr("time.time", lambda: 1e9)
    keys = [load_key(path)]
    for _ in range(2):
        run(tmp_path, "policy")
        keys.append((tmp_path / "policy.next.key").read_bytes())
        with monkeypatch.context() as killed:
            killed.delattr(Path, "replace")
            assert run(tmp_path, "policy", "--stage", "switch")[0] != 0
        assert path.read_bytes() == keys[-2]
        assert run(tmp_path, "policy", "--stage", "switch")[0] == 0
        assert sorted(accepted_keys(path)) == sorted(keys), "none is lost or there twice"
    assert accepted_keys(path)[0] == keys[-1]


def test_the_list_has_every_key_with_its_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_key(tmp_path / "policy.key")
    certificate = tmp_path / "tls.crt"
    certificate.write_text("")
    monkeypatch.setenv("TOOLBUS_TLS_CERT", str(certificate))
    shown = {each["key"]: each for each in json.loads(run(tmp_path, "--list", "--json")[1])}
    assert set(shown) == {each.name for each in KEYS}
    assert shown["policy"]["days"] == 0
    assert shown["certificate"]["file"] == str(certificate)
    assert shown["people"]["days"] is None
    assert shown["encryption"]["file"] == ""
    assert "a new log key" in run(tmp_path, "--list")[1]


def test_the_list_shows_a_rotation_that_is_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_key(tmp_path / "policy.key")
    directory = tmp_path / "elsewhere"
    create_encryption_keys(directory)
    monkeypatch.setenv("TOOLBUS_ENCRYPTION_DIR", str(directory))
    run(tmp_path, "policy")
    run(tmp_path, "encryption")
    rows = json.loads(run(tmp_path, "--list", "--json")[1])
    shown = {Path(each["file"]).name: (each["key"], each["how"]) for each in rows}
    assert shown["policy.key"] == ("policy", "toolbus rotate")
    assert shown["policy.next.key"] == ("policy", "accepted too: the rotation is not finished")
    assert shown["oauth.key"] == ("encryption", "toolbus rotate")
    assert shown["oauth.next.key"][1].startswith("accepted too")
    assert shown["digests.key"] == ("encryption", "toolbus rotate")
    assert len(rows) == len(KEYS) + 1 + 2 * 4 - 1, "policy's next, and four keys with a next one"
