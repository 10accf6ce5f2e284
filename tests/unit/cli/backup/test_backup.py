"""Backup and restore of a state directory: what returns, and what is refused."""

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.samples.state_dirs import SECRET, key_files, sample_state
from toolbus_cli.backup.archive import Extraction
from toolbus_cli.backup.contents import small_files
from toolbus_cli.backup.create import create
from toolbus_cli.backup.errors import BackupError
from toolbus_cli.backup.live_parts import only_one
from toolbus_cli.backup.manifest import Manifest
from toolbus_cli.backup.restore import read_manifest, restore, verify
from toolbus_cli.backup.sealed_keys import Lock, by_key_file
from toolbus_cli.backup.target import DirectoryTarget
from toolbus_cli.runner import main
from toolbus_cli.state_dir import State
from toolbus_common.nats.permissions import new_seed

PASSPHRASE = "correct horse battery staple"
FILES = (
    "checkpoints.tar.gz.000001", "counters.tar.gz.000001", "keys.jwe", "keys.sealed",
    "outbox.tar.gz.000001", "stream.tar.gz.000001", "tables.tar.gz.000001",
)  # fmt: skip


@dataclass(frozen=True)
class Installation:
    """A stopped installation with its backup."""

    directory: Path
    files: dict[str, bytes]
    manifest: Manifest
    lock: Lock  # of the private key

    @property
    def backup(self) -> Path:
        return self.directory / "backup"

    @property
    def target(self) -> DirectoryTarget:
        return DirectoryTarget(self.backup)

    @property
    def restored(self) -> Path:
        return self.directory / "restored" / "state"

    def restore(self, lock: Lock | None = None) -> bool:
        """Restore the backup beside the installation."""
        self.restored.parent.mkdir(exist_ok=True)
        config = self.restored.parent / "toolbus.yaml"
        manifest = read_manifest(self.target)
        return restore(manifest, self.target, lock or self.lock, self.restored, config)

    def left(self) -> list[Path]:
        """Return what a failed restore has left."""
        return list(self.restored.parent.iterdir())


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    files = sample_state(tmp_path / "state")
    config = tmp_path / "toolbus.yaml"
    config.write_text("servers: {}\n")
    private, public = key_files(tmp_path)
    target = DirectoryTarget(tmp_path / "backup")
    manifest = create(State(tmp_path / "state"), config, target, by_key_file(public, private=False))
    return Installation(tmp_path, files, manifest, by_key_file(private, private=True))


@pytest.fixture
def public(tmp_path: Path) -> Lock:
    return by_key_file(key_files(tmp_path)[1], private=False)


def test_a_restored_directory_has_the_same_files_for_its_owner_only(
    installation: Installation,
) -> None:
    assert installation.restore()
    paths = [path for path in installation.restored.rglob("*") if not path.is_symlink()]
    files = {
        path.relative_to(installation.restored).as_posix(): path.read_bytes()
        for path in paths
        if path.is_file()
    }
    assert files == installation.files
    link = installation.restored / "clickhouse/metadata/toolbus"
    assert str(link.readlink()) == "../store/680/one"
    assert (link / "data.bin").exists()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in [installation.restored, *paths]}
    assert modes == {0o600, 0o700}
    config = installation.restored.parent / "toolbus.yaml"
    assert config.read_text() == "servers: {}\n"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600


def test_no_key_and_no_unknown_file_is_in_a_backup_unsealed(installation: Installation) -> None:
    readable = installation.directory / "readable"
    for part in installation.manifest.parts:
        Extraction(part, readable).run(installation.target)
    there = {path.relative_to(readable).as_posix() for path in readable.rglob("*")}
    keys = {name for name, data in installation.files.items() if data == SECRET}
    assert not there & keys
    assert {path.name for path in installation.backup.iterdir()} == {*FILES, "manifest.json"}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in installation.backup.iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE(installation.backup.stat().st_mode) == 0o700


def test_a_sound_backup_has_no_fault(installation: Installation) -> None:
    found = verify(installation.manifest, installation.target, installation.lock)
    assert [each.part for each in found] == [
        "tables", "checkpoints", "counters", "outbox", "stream", "keys",
    ]  # fmt: skip
    assert {each.fault for each in found} == {""}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["changed", "cut", "longer", "missing"])
def test_each_damaged_file_is_named_and_nothing_is_restored(
    installation: Installation, name: str, damage: str
) -> None:
    path = installation.backup / name
    data = path.read_bytes()
    middle = len(data) // 2
    if damage == "missing":
        path.unlink()
    else:
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"changed": flipped, "cut": data[:-1], "longer": data + b"x"}[damage])
    found = verify(installation.manifest, installation.target, installation.lock)
    (fault,) = [each.fault for each in found if each.fault]
    assert f"'{name}'" in fault
    with pytest.raises(BackupError, match=f"'{name}'"):
        installation.restore()
    assert installation.left() == []


def test_another_private_key_restores_nothing(installation: Installation, tmp_path: Path) -> None:
    wrong = by_key_file(key_files(tmp_path)[0], private=True)
    with pytest.raises(BackupError, match="cannot be decrypted with this private key"):
        installation.restore(wrong)
    assert installation.left() == []
    found = verify(installation.manifest, installation.target, wrong)
    (fault,) = [each.fault for each in found if each.fault]
    assert "private key" in fault


@pytest.mark.parametrize(
    ("field", "value"), [("complete_until", "2020-01-01"), ("parts", []), ("taken", "running")]
)
def test_a_changed_manifest_does_not_match_the_sealed_keys(
    installation: Installation, field: str, value: object
) -> None:
    path = installation.backup / "manifest.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, field: value}))
    with pytest.raises(BackupError, match="was changed"):
        installation.restore()
    assert installation.left() == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "has the format 2"),
        ({"versions": {"toolbus": "999.0.0"}}, "made by Toolbus 999.0.0, which is newer"),
        ({"parts": 1}, "is not a manifest"),
        ({"keys": [{"name": "../../etc/passwd", "size": 1, "sha256": "0" * 64}]}, "names files"),
        ({"keys": [{"name": "keys.jwe", "size": 1 << 40, "sha256": "0" * 64}]}, "names files"),
    ],
)
def test_a_manifest_that_this_version_cannot_read_is_refused(
    installation: Installation, change: dict[str, object], reason: str
) -> None:
    path = installation.backup / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BackupError, match=reason):
        read_manifest(installation.target)


def test_a_directory_without_manifest_is_no_backup(installation: Installation) -> None:
    (installation.backup / "manifest.json").unlink()
    with pytest.raises(BackupError, match="its creation did not end"):
        read_manifest(installation.target)


def test_nothing_that_exists_is_replaced(installation: Installation, public: Lock) -> None:
    with pytest.raises(BackupError, match="is not empty; name a new directory"):
        create(
            State(installation.directory / "state"),
            None,
            installation.target,
            public,
        )
    installation.restore()
    with pytest.raises(BackupError, match="is not empty; name a new state directory"):
        installation.restore()
    for path in installation.restored.rglob("*"):
        if path.is_file():
            path.unlink()
    link = installation.directory / "restored" / "link"
    link.symlink_to(installation.restored)
    with pytest.raises(BackupError, match="is not empty"):
        restore(
            installation.manifest, installation.target, installation.lock, link, link / "no.yaml"
        )


def test_a_configuration_file_that_exists_is_not_replaced(installation: Installation) -> None:
    installation.restored.parent.mkdir()
    config = installation.restored.parent / "toolbus.yaml"
    config.write_text("mine")
    with pytest.raises(BackupError, match="exists; move it away"):
        installation.restore()
    assert config.read_text() == "mine"
    assert installation.left() == [config]


@pytest.mark.parametrize("missing", ["clickhouse", "nats/store"])
def test_an_installation_with_an_engine_elsewhere_is_refused(
    tmp_path: Path, public: Lock, missing: str
) -> None:
    sample_state(tmp_path / "state")
    (tmp_path / "state" / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(BackupError, match=f"has no '{missing}'.*in an external server"):
        create(
            State(tmp_path / "state"),
            None,
            DirectoryTarget(tmp_path / "b"),
            public,
        )
    assert not (tmp_path / "b").exists()


def test_events_of_the_lite_form_are_moved_before_a_backup(tmp_path: Path, public: Lock) -> None:
    state, target = State(tmp_path / "state"), DirectoryTarget(tmp_path / "b")
    sample_state(state.root)
    (state.root / "clickhouse").rename(tmp_path / "elsewhere")
    (state.root / "events.db").write_bytes(b"SQLite")
    with pytest.raises(BackupError, match=r"lite form, which has no backup\. Start 'toolbus up'"):
        create(state, None, target, public)
    (tmp_path / "elsewhere").rename(state.root / "clickhouse")
    with pytest.raises(BackupError, match="repeat this command when the file has been moved"):
        create(state, None, target, public)
    assert not (tmp_path / "b").exists()
    moved = (state.root / "events.db").rename(state.root / "events.moved.db")
    create(state, None, target, public)
    assert moved not in small_files(state.root)


@pytest.mark.parametrize("place", ["clickhouse/out", "nats/store/out", "out"])
def test_a_link_out_of_the_state_directory_is_refused(
    tmp_path: Path, public: Lock, place: str
) -> None:
    sample_state(tmp_path / "state")
    (tmp_path / "state" / place).symlink_to("/etc")
    with pytest.raises(BackupError, match=f"{place}' is a link"):
        create(
            State(tmp_path / "state"),
            None,
            DirectoryTarget(tmp_path / "b"),
            public,
        )


def test_commands_report_the_point_of_loss_and_the_next_steps(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(installation.directory)
    passphrase = installation.directory / "passphrase"
    passphrase.write_text(f"{PASSPHRASE}\n")
    option = ["--passphrase-file", str(passphrase)]
    assert main(["backup", "create", "second", "--state-dir", "state", *option]) == 0
    assert "Point of loss: 20" in capsys.readouterr().out
    assert main(["backup", "verify", "second", *option]) == 0
    assert "The backup is sound." in capsys.readouterr().out
    assert main(["backup", "verify", "second", "--without-keys", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["absent"] == {}
    new = ["--state-dir", "new", "--config", "new.yaml"]
    assert main(["backup", "restore", "second", *new, *option]) == 0
    shown = capsys.readouterr().out
    assert "toolbus up --state-dir new -c new.yaml" in shown
    assert "Never start the original again" in shown
    (installation.directory / "second" / "keys.jwe").write_text("x")
    assert main(["backup", "verify", "second", *option]) == 1
    assert "The backup is damaged." in capsys.readouterr().out


def test_a_running_installation_whose_bus_does_not_reply_is_not_backed_up(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOOLBUS_BACKUP_PASSPHRASE", PASSPHRASE)
    state = State(installation.directory / "state")
    (state.seeds / "operator.seed").write_text(new_seed())
    state.run_file.write_text(json.dumps({"pid": os.getpid(), "nats_url": "nats://127.0.0.1:1"}))
    target = installation.directory / "b"
    assert main(["backup", "create", str(target), "--state-dir", str(state.root)]) == 1
    assert "Cannot connect to NATS at nats://127.0.0.1:1" in capsys.readouterr().err
    assert not target.exists()


def test_only_one_backup_of_a_running_installation_is_made_at_once(tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(BackupError, match="Another backup"), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass
