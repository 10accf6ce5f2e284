"""The drill: an installation is destroyed, restored from its backup, and compared.

`make backup` runs it; it takes a minute for each of its tests.
"""

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from harness.engines.s3_server import BUCKET, Store, store
from harness.gateway.backed_up_gateway import CHARGE, SECRET, BackedUp
from harness.gateway.cluster import Upstream
from harness.waits import until_blocking

CONNECTIONS = ("accounts", "clients", "grants", "connections", "keys", "pins")
_COUNTS = (
    "SELECT countIf(event = 'call.allowed') AS allowed, count() AS total,"
    " uniqExact(stream_seq, line) AS lines FROM events WHERE startsWith(event, 'call.')"
)


class Drill(BackedUp):
    """An installation with calls, an account, a client and a key of a command."""

    created = ""  # the secret of the key that a command created

    def fill(self) -> None:
        """Create what a restore must bring back."""
        self.use(40)
        added = self.toolbus(
            "accounts", "add", "ann", "--password-stdin", stdin="a long password of ann\n"
        )
        assert added.returncode == 0, added.stderr
        self.succeeds("clients", "add", "nightly")
        self.created = self.document("keys", "create", "guest", "--tools", "echo__*")["secret"]

    def lists(self) -> dict[str, object]:
        """Return what commands list."""
        return {each: self.document(each, "list") for each in CONNECTIONS}

    def proof(self, name: str) -> Path:
        """Export the evidence of the customer; return the file."""
        words = ("audit", "export", str(self.directory / name))
        until_blocking(lambda: self.toolbus(*words).returncode == 0, "there is a checkpoint")
        return self.directory / name

    def is_charged(self) -> bool:
        """Return whether each admitted call is charged, or reserved until its outcome is known."""
        (budget,), (calls,) = self.budgets(), self.rows(_COUNTS)
        return bool(budget.spent + budget.reserved == calls["allowed"] * CHARGE)

    @contextmanager
    def steady_calls(self) -> Iterator[list[str]]:
        """Make calls, one after the other, until the context ends; yield the codes of failures."""
        failed: list[str] = []
        ended = Event()

        def call() -> None:
            client = self.client(SECRET)
            while not ended.is_set():
                if code := client.call("echo__say", {"text": "meanwhile"}).code:
                    failed.append(code)
                ended.wait(0.01)

        thread = Thread(target=call)
        thread.start()
        try:
            yield failed
        finally:
            ended.set()
            thread.join()

    def verify(self, proof: Path, key: str, *options: str) -> None:
        """Verify evidence offline."""
        done = self.offline("audit", "verify", str(proof), "--key", key, *options)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(params=["fused", "separate"])
def drill(request: pytest.FixtureRequest, tmp_path: Path) -> Drill:
    options = ["--separate"] if request.param == "separate" else []
    (tmp_path / "upstream").mkdir()
    return Drill(tmp_path / "gateway", Upstream(tmp_path / "upstream"), *options)


def test_after_a_restore_everything_is_as_it_was(drill: Drill, tmp_path: Path) -> None:
    target, config = str(tmp_path / "backup"), ["--config", str(drill.config)]
    with drill.upstream.running():
        with drill.running():
            drill.fill()
            before = (drill.spent(), drill.calls(), drill.lists())
            key = drill.succeeds("audit", "key").strip()
            proof = drill.proof("before.zip")
            drill.use(5)
            spent = drill.spent()
        seen = tmp_path / "default.jsonl"
        shutil.copy(drill.state_dir / "evidence" / seen.name, seen)
        drill.succeeds("backup", "create", target, *config)
        checked = drill.offline("backup", "verify", target)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        drill.destroy()
        drill.succeeds("backup", "restore", target, *config)
        with drill.running():
            until_blocking(lambda: drill.spent() == spent, "the ledger has the spending")
            restored = drill.calls()
            assert all(row in restored for row in before[1])
            assert drill.lists() == before[2]
            assert drill.succeeds("audit", "key").strip() == key
            drill.verify(proof, key)
            drill.verify(drill.proof("after.zip"), key, "--seen", str(seen))
            for secret in (SECRET, drill.created):
                assert drill.client(secret).call("echo__say", {"text": "again"}).code == ""
            assert "[bad]" not in drill.toolbus("doctor").stdout


def test_a_backup_of_a_running_installation_has_each_event_once(
    drill: Drill, tmp_path: Path
) -> None:
    target, config = str(tmp_path / "backup"), ["--config", str(drill.config)]
    with drill.upstream.running():
        with drill.running():
            drill.fill()
            before, key = drill.lists(), drill.succeeds("audit", "key").strip()
            proof = drill.proof("before.zip")
            seen = tmp_path / "default.jsonl"
            shutil.copy(drill.state_dir / "evidence" / seen.name, seen)
            with drill.steady_calls() as failed:
                drill.succeeds("backup", "create", target, *config)
            assert failed == []
            drill.stop(signal.SIGKILL)
        checked = drill.offline("backup", "verify", target)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        drill.destroy()
        drill.succeeds("backup", "restore", target, *config)
        executed = len(drill.upstream.arrived())
        with drill.running():
            client = drill.client(SECRET)
            until_blocking(
                lambda: client.call("echo__say", {"text": "again"}).code == "", "it is rebuilt"
            )
            (calls,) = drill.eventual_rows(_COUNTS, lambda rows: rows[0]["allowed"] > 40)
            assert 40 < calls["allowed"] <= executed + 1
            assert calls["lines"] == calls["total"]
            until_blocking(drill.is_charged, "each admitted call is charged or reserved")
            assert drill.lists() == before
            drill.verify(proof, key)
            drill.verify(drill.proof("after.zip"), key, "--seen", str(seen))


def test_the_counters_are_rebuilt_from_the_events(drill: Drill, tmp_path: Path) -> None:
    target, config = str(tmp_path / "backup"), ["--config", str(drill.config)]
    with drill.upstream.running():
        with drill.running():
            drill.use(10)
            spent = drill.spent()
        shutil.rmtree(drill.state_dir / "valkey")
        drill.succeeds("backup", "create", target, *config)
        verified = drill.offline("backup", "verify", target, "--json")
        assert "counters" in json.loads(verified.stdout)["absent"]
        drill.destroy()
        drill.succeeds("backup", "restore", target, *config)
        with drill.running():
            client = drill.client(SECRET)
            until_blocking(
                lambda: client.call("echo__say", {"text": "again"}).code == "", "it is rebuilt"
            )
            until_blocking(lambda: drill.spent() == spent + CHARGE, "the spending continues")


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "store").mkdir()
    with store(tmp_path / "store") as found:
        yield found


def test_a_bucket_holds_a_whole_backup(drill: Drill, bucket: Store) -> None:
    drill.environment |= {
        "AWS_ENDPOINT_URL": bucket.url,
        "AWS_ACCESS_KEY_ID": bucket.access_key,
        "AWS_SECRET_ACCESS_KEY": bucket.secret_key,
    }
    target, config = f"s3://{BUCKET}/2026-11-24", ["--config", str(drill.config)]
    with drill.upstream.running():
        with drill.running():
            drill.use(10)
            spent = drill.spent()
            drill.succeeds("backup", "create", target, *config)
        assert "has a backup" in drill.toolbus("backup", "create", target, *config).stderr
        checked = drill.offline("backup", "verify", target)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        drill.destroy()
        drill.succeeds("backup", "restore", target, *config)
        with drill.running():
            client = drill.client(SECRET)
            until_blocking(
                lambda: client.call("echo__say", {"text": "again"}).code == "", "it is rebuilt"
            )
            until_blocking(lambda: drill.spent() == spent + CHARGE, "the spending continues")
        key = next(name for name in bucket.objects() if name.endswith("tables.tar.gz.000001"))
        bucket.client.put_object(Bucket=BUCKET, Key=key, Body=b"x")
        damaged = drill.offline("backup", "verify", target)
        assert damaged.returncode == 1
        assert "tables.tar.gz.000001" in damaged.stdout
