"""Import of HTTP APIs: from a document, a cURL command, a Postman collection."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from toolbus_cli.app import built
from toolbus_cli.config_file import load_file
from toolbus_cli.errors import CommandError
from toolbus_cli.importing import curl, postman
from toolbus_cli.importing.openapi_builder import Sample, sketched
from toolbus_cli.importing.yaml_insert import with_server
from toolbus_common.config_store.loading.loader import load
from toolbus_common.openapi import Api, read, translated

CRM = """\
openapi: 3.0.3
info: {title: My CRM, version: "1"}
servers: [{url: "https://crm.example/v1"}]
security: [{token: []}]
paths:
  /contacts:
    get: {operationId: listContacts, tags: [contacts], summary: List contacts}
    post: {operationId: addContact, tags: [contacts]}
  /deals/{id}:
    delete: {operationId: dropDeal, parameters: [{name: id, in: path, required: true}]}
components: {securitySchemes: {token: {type: http, scheme: bearer}}}
"""
FILE = """\
# ours
servers:   # all of them
    docs: {url: "https://docs.example/mcp"}  # kept
keys: {default: {tools: ["*"]}}
"""


def run(*words: str) -> Any:
    return CliRunner().invoke(built(), ["import", *words])


def made(sample: Sample) -> tuple[Api, dict[str, str]]:
    sketch = sketched([sample], "T", "crm")
    return translated(read(sketch.as_yaml().encode()), "crm.openapi.yaml"), sketch.credentials


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_document_becomes_a_server_and_its_tools_are_shown(tmp_path: Path) -> None:
    (tmp_path / "crm.yaml").write_text(CRM)
    ended = run("openapi", "crm.yaml", "--exclude", "DELETE *")
    assert ended.exit_code == 0, ended.output
    assert "listContacts" in ended.output
    assert "dropDeal" not in ended.output
    body = yaml.safe_load(ended.stdout[ended.stdout.index("servers:") :])
    assert body["servers"]["my-crm"] == {
        "openapi": "crm.yaml",
        "base_url": "https://crm.example/v1",
        "credentials": {"token": "${env:MY_CRM_TOKEN}"},
        "operations": {"exclude": ["DELETE *"]},
    }


def test_a_server_is_inserted_and_the_files_comments_stay(tmp_path: Path) -> None:
    (tmp_path / "apis").mkdir()
    (tmp_path / "apis" / "crm.yaml").write_text(CRM)
    path = tmp_path / "toolbus.yaml"
    path.write_text(FILE)
    ended = run("openapi", "apis/crm.yaml", "--name", "crm", "-o", "toolbus.yaml")
    assert ended.exit_code == 0, ended.output
    text = path.read_text()
    assert "# ours" in text
    assert "# kept" in text
    declared = load_file(path, os.environ).configuration.servers
    assert declared["crm"].openapi == str(tmp_path.resolve() / "apis" / "crm.yaml")
    assert declared["docs"].url == "https://docs.example/mcp"
    again = run("openapi", "apis/crm.yaml", "--name", "crm", "-o", "toolbus.yaml")
    assert again.exit_code != 0
    assert isinstance(again.exception, CommandError)
    assert "already exists" in again.exception.message
    assert path.read_text() == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "keys: {}\n",
        "servers:\n  a: {url: 'http://a.example'}\n",
        "servers:\n\n    a:\n        url: http://a.example\nkeys: {}",
        "servers:\n",
    ],
)
def test_a_server_is_inserted_in_every_block_style(text: str) -> None:
    before = (yaml.safe_load(text) or {}).get("servers") or {}
    after = yaml.safe_load(with_server(text, "crm", {"openapi": "crm.yaml"}))
    assert after["servers"] == {**before, "crm": {"openapi": "crm.yaml"}}
    assert load(with_server(text, "crm", {"openapi": "crm.yaml"}), {}).problems == ()


def test_servers_in_flow_style_are_not_edited() -> None:
    with pytest.raises(CommandError, match="one line"):
        with_server("servers: {a: {url: 'http://a.example'}}", "crm", {"openapi": "crm.yaml"})


def test_a_curl_command_for_an_ip_address_gets_a_valid_variable_name(tmp_path: Path) -> None:
    line = "curl http://127.0.0.1:9000/users -H 'X-Api-Key: k-value'"
    ended = run("curl", line, "-o", str(tmp_path / "toolbus.yaml"))
    assert ended.exit_code == 0, ended.output
    assert "Set _127_0_0_1_X_API_KEY to " in ended.output
    declared = load_file(tmp_path / "toolbus.yaml", {"_127_0_0_1_X_API_KEY": "k-value"})
    assert declared.problems == ()
    assert (tmp_path / "127-0-0-1.openapi.yaml").exists()


def test_a_curl_command_becomes_a_tool_without_its_credentials() -> None:
    line = (
        "curl -X PUT 'https://crm.example/users/{id}?notify=yes&api_key=k-value' \\\n"
        " -H 'Authorization: Bearer t-value' -H 'X-Region: eu' -H 'Content-Type: application/json'"
        ' --data-raw \'{"name": "Ann", "age": 3}\' --compressed -sS'
    )
    api, credentials = made(curl.read(line))
    (operation,) = api.operations.values()
    assert (operation.method, operation.path) == ("PUT", "/users/{id}")
    assert api.base == "https://crm.example"
    schema = operation.definition["inputSchema"]
    assert set(schema["properties"]) == {"id", "notify", "X-Region", "body"}
    assert schema["properties"]["body"]["properties"]["age"] == {"type": "integer"}
    assert credentials == {
        "api_key": "${env:CRM_API_KEY}",
        "bearer": "${env:CRM_BEARER}",
    }
    assert "value" not in sketched([curl.read(line)], "T", "crm").as_yaml()


@pytest.mark.parametrize(
    ("line", "method", "form"),
    [
        ("curl https://a.example/x", "GET", None),
        ("curl -d a=1 -d b=2 https://a.example/x", "POST", "form"),
        ("curl https://a.example/x -F file=@a.png -F note=hi", "POST", "multipart"),
        ("curl --json '[1]' https://a.example/x", "POST", "json"),
        ("curl -G -d q=1 --url https://a.example/x -uuser:password", "GET", None),
        (
            "curl -XDELETE --request=PATCH a.example -d x -H'content-type: text/plain'",
            "PATCH",
            "text",
        ),
    ],
)
def test_curl_options_are_parsed(line: str, method: str, form: str | None) -> None:
    api, _ = made(curl.read(line))
    (operation,) = api.operations.values()
    assert operation.method == method
    assert (operation.body.form if operation.body else None) == form


@pytest.mark.parametrize("line", ["wget x", "curl", "curl 'a", "curl http://a http://b", ""])
def test_an_invalid_curl_command_is_rejected_with_one_message(line: str) -> None:
    with pytest.raises(CommandError):
        curl.read(line)


COLLECTION = {
    "info": {"name": "Shop (dev)"},
    "variable": [{"key": "base", "value": "https://shop.example/api"}],
    "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "t-value"}]},
    "item": [
        {
            "name": "Orders",
            "item": [
                {
                    "name": "Get order",
                    "request": {
                        "method": "GET",
                        "url": {"raw": "{{base}}/orders/:id?expand=lines"},
                        "header": [{"key": "X-Old", "value": "1", "disabled": True}],
                    },
                },
                {
                    "name": "Upload",
                    "request": {
                        "method": "POST",
                        "url": "{{base}}/orders/{{order}}/file",
                        "auth": {"type": "apikey", "apikey": [{"key": "key", "value": "X-Shop"}]},
                        "body": {
                            "mode": "formdata",
                            "formdata": [
                                {"key": "file", "type": "file"},
                                {"key": "note", "value": "hi"},
                            ],
                        },
                    },
                },
            ],
        },
        {"name": "Elsewhere", "request": {"method": "GET", "url": "https://other.example/x"}},
        {"name": "Nowhere", "request": {"method": "GET", "url": "{{gone}}/x"}},
        {"name": "Get order", "request": {"url": "{{base}}/orders/:id"}},
    ],
}


def test_a_collection_becomes_a_document_next_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "shop.json").write_text(json.dumps(COLLECTION))
    (tmp_path / "toolbus.yaml").write_text(FILE)
    ended = run("postman", "shop.json", "-o", "toolbus.yaml", "--json")
    assert ended.exit_code == 0, ended.output
    body = json.loads(ended.stdout)
    assert body["name"] == "shop-dev"
    assert body["tools"] == ["Get_order", "Upload"]
    notes = " ".join(body["notes"])
    for words in (
        "its server is",
        "its URL is incomplete",
        "already exists",
        "Set SHOP_DEV_BEARER",
    ):
        assert words in notes
    path = tmp_path / "shop-dev.openapi.yaml"
    assert "t-value" not in path.read_text()
    api = translated(read(path.read_bytes()), str(path))
    assert api.base == "https://shop.example"
    assert api.operations["Get_order"].path == "/api/orders/{id}"
    assert api.operations["Upload"].security == (("X-Shop",),)
    assert api.operations["Upload"].body is not None
    assert api.operations["Upload"].body.files == ("file",)
    declared = load_file(tmp_path / "toolbus.yaml", os.environ).configuration.servers["shop-dev"]
    assert declared.openapi == str(path.resolve())
    assert declared.credentials["bearer"] == "${env:SHOP_DEV_BEARER}"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"item": []}', '{"item": [{"request": {}}]}'])
def test_an_invalid_collection_is_rejected_with_one_message(text: str) -> None:
    with pytest.raises(CommandError):
        postman.read(text)


def test_a_client_file_is_imported(tmp_path: Path) -> None:
    (tmp_path / "client.json").write_text('{"mcpServers": {"a": {"command": "x"}}}')
    for words in (["client.json"], ["--json", "client.json"], ["clients", "client.json"]):
        ended = run(*words)
        assert ended.exit_code == 0, ended.output
        assert "command" in ended.stdout
