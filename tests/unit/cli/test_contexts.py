"""Contexts: where they are stored, what is refused in one, and what requests carry."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from toolbus_cli import runner
from toolbus_cli.command_line import SUMMARIES
from toolbus_cli.remote import contexts

Answers = dict[str, tuple[int, Any]]
Run = Callable[..., tuple[int, str, str]]
SECRET = "tba_ann_unit-secret-of-contexts"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command line; contexts are stored in `tmp_path`."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str, str]:
        with pytest.MonkeyPatch.context() as each:
            each.setenv(contexts.VARIABLE, "")
            code = runner.main(words)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return command


@pytest.fixture
def gateway() -> Iterator[tuple[str, Answers, list[str]]]:
    """Serve answers by path; record the lines and credentials of requests."""
    answers: Answers = {"/api/v1/self": (200, {"name": "ann", "role": "operator"})}
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            requests.append(f"{self.command} {self.path} {self.headers['Authorization']}")
            status, body = answers.get(self.path, (404, {"detail": "No.", "fix": "Look."}))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        do_POST = do_PUT = do_GET  # noqa: N815 - names of the base class

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", answers, requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def prod(run: Run, gateway: tuple[str, Answers, list[str]], tmp_path: Path) -> str:
    """Add the context `prod`; return its URL."""
    (tmp_path / "ann.key").write_text(f"{SECRET}\n")
    added = run("context", "add", "prod", f"{gateway[0]}/mcp", "--key-file", "ann.key")
    assert added == (0, "Added the context 'prod' with the role operator.\n", "")
    return gateway[0]


def test_a_key_is_stored_for_its_owner_only_and_never_shown(
    run: Run, prod: str, gateway: tuple[str, Answers, list[str]]
) -> None:
    assert gateway[2] == [f"GET /api/v1/self Bearer {SECRET}"]
    assert contexts.file().stat().st_mode & 0o777 == 0o600
    assert run("context", "use", "prod")[0] == 0
    code, listed, _ = run("context", "list", "--json")
    assert json.loads(listed) == [
        {"name": "local", "url": "", "in use": False},
        {"name": "prod", "url": prod, "in use": True},
    ]
    assert (code, SECRET in listed) == (0, False)
    assert SECRET not in repr(contexts.stored())
    contexts.file().chmod(0o640)
    code, _, error = run("get")
    assert (code, "chmod 600" in error) == (1, True)


def test_a_context_whose_key_is_rejected_is_not_stored(
    run: Run, gateway: tuple[str, Answers, list[str]], tmp_path: Path
) -> None:
    (tmp_path / "ann.key").write_text(SECRET)
    gateway[1]["/api/v1/self"] = (401, {"detail": "Invalid."})
    code, _, error = run("context", "add", "prod", gateway[0], "--key-file", "ann.key")
    assert (code, "rejects the admin key" in error) == (1, True)
    assert contexts.stored() == {}


@pytest.mark.parametrize(
    "url", ["http://toolbus.example", "ftp://a.example", "toolbus.example", "https://u@a.example"]
)
def test_a_key_is_sent_over_tls_or_to_this_machine_only(run: Run, tmp_path: Path, url: str) -> None:
    (tmp_path / "ann.key").write_text(SECRET)
    code, _, error = run("context", "add", "prod", url, "--key-file", "ann.key")
    assert (code, "https://" in error) == (1, True)


def test_every_command_works_in_a_context_or_is_refused_with_an_alternative(
    run: Run, prod: str
) -> None:
    assert prod
    for command in SUMMARIES:
        if command in (*contexts.REMOTE, *contexts.ANYWHERE):
            continue
        code, shown, error = run("--context", "prod", command)
        assert (code, shown) == (1, ""), command
        assert f"'toolbus --context local {command}'" in error
    assert "administration API" in run("--context=prod", "ledger", "show")[2]
    assert run("--context", "prod", "up", "--help")[0] == 0


def test_the_context_in_use_applies_until_local_is_used(run: Run, prod: str) -> None:
    assert prod
    run("context", "use", "prod")
    assert "does not work in the context 'prod'" in run("ledger", "show")[2]
    assert "'toolbus up'" in run("--context", "local", "status")[2]
    run("context", "use", "local")
    assert "'toolbus up'" in run("status")[2]
    assert run("context", "remove", "prod")[0] == 0
    assert "There is no context 'prod'" in run("--context", "prod", "get")[2]
    assert run("--context")[0] == 2


def test_approvals_are_listed_and_decided_in_a_context(
    run: Run, prod: str, gateway: tuple[str, Answers, list[str]]
) -> None:
    assert prod
    _, answers, requests = gateway
    waiting = {
        "id": "a1", "state": "pending", "key": "bot", "server": "notes", "tool": "add",
        "method": "tools/call", "cause": "key bot", "requested_at": 1.0, "ends": 2.0,
    }  # fmt: skip
    answers["/api/v1/approvals"] = (200, {"approvals": [waiting]})
    answers["/api/v1/approvals/a1"] = (200, waiting)
    answers["/api/v1/approvals/a1/approve"] = (200, waiting)
    answers["/api/v1/approvals/a1/reject"] = (409, {"detail": "It ended.", "fix": "List again."})
    assert (
        "notes__add (tools/call), called with key bot" in run("--context", "prod", "approvals")[1]
    )
    assert "a1  pending" in run("--context", "prod", "approvals", "a1")[1]
    assert run("--context", "prod", "approve", "a1")[1].startswith("Approved a1")
    rejected = run("--context", "prod", "reject", "a1", "--reason", "no")
    assert rejected == (1, "", "It ended. List again.\n")
    assert f"POST /api/v1/approvals/a1/approve Bearer {SECRET}" in requests
