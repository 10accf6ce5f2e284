"""ClickHouse's HTTP interface over the embedded engine, as far as audit's server mode uses it.

Usage: `clickhouse_shim.py DIRECTORY PORT [HOST]`. It has no users and no sessions,
and compresses no responses.
"""

import json
import re
import sys
import tempfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import chdb
import lz4.frame

connect: Callable[[str], Any] = chdb.connect  # chdb has no type hints
# Parameters of the HTTP transport; the engine does not know them as settings.
TRANSPORT = re.compile(
    r"(query|database|default_format|session_\w+|query_id|compress|decompress|client_\w+|role"
    r"|wait_end_of_query|buffer_size|quota_key|enable_http_compression|\w*http_headers\w*)"
)
FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
DATA = re.compile(rb"\bFORMAT\s+(\w+)\s*$", re.IGNORECASE)
CODE = re.compile(r"Code: (\d+)")


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    path_of_data: str

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._chunks()
        if self.headers.get("content-encoding") == "lz4":
            body = lz4.frame.decompress(body)
        url = urlsplit(self.path)
        if url.path == "/ping":
            self._send(200, b"Ok.\n", "")
            return
        given = dict(parse_qsl(url.query, keep_blank_values=True))
        handle = connect(self.path_of_data)
        try:
            self._prepare(handle, given)
            answer, form = self._run(handle, given, body)
            self._send(200, answer, form)
        except RuntimeError as error:
            text = str(error)
            code = match[1] if (match := CODE.search(text)) else "1001"
            self._send(500, text.encode(), "", code)
        finally:
            handle.close()

    def _prepare(self, handle: Any, given: dict[str, str]) -> None:
        if database := given.get("database"):
            handle.query(f"USE `{database}`")
        settings = {
            name: value
            for name, value in given.items()
            if not TRANSPORT.fullmatch(name) and not name.startswith("param_")
        }
        for name in sorted(settings, key=lambda name: name == "readonly"):
            handle.query(f"SET {name} = {quoted(settings[name])}")

    def _run(self, handle: Any, given: dict[str, str], body: bytes) -> tuple[bytes, str]:
        statement = given.get("query", "").encode()
        if statement and body and DATA.search(statement):
            return self._load(handle, statement, body), ""
        sql = statement + (b"\n" if statement else b"") + body
        if match := re.match(rb"\s*(INSERT\s.*?FORMAT\s+\w+) *\n(.+)", sql, re.DOTALL):
            return self._load(handle, match[1], match[2]), ""
        found = FORMAT.search(sql)
        form = found[1].decode() if found else given.get("default_format", "TabSeparated")
        parameters = {name[6:]: text for name, text in given.items() if name[:6] == "param_"}
        result = handle.query(sql.decode(), form, params=parameters)
        return bytes(result.bytes() or b""), form

    def _load(self, handle: Any, statement: bytes, data: bytes) -> bytes:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            head, _, form = statement.decode().rstrip().rpartition("FORMAT")
            handle.query(f"{head} FROM INFILE {quoted(file.name)} FORMAT {form}")
        return b""

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, body: bytes, form: str, code: str = "") -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-clickhouse-summary", json.dumps({}))
        if form and body:
            self.send_header("x-clickhouse-format", form)
        if code:
            self.send_header("x-clickhouse-exception-code", code)
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    directory, port, host = (*sys.argv[1:], "127.0.0.1")[:3]
    Handler.path_of_data = directory
    keep = connect(directory)
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
    keep.close()


if __name__ == "__main__":
    main()
