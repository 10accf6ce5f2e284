"""Commands that import HTTP APIs: OpenAPI documents, cURL lines, Postman collections."""

import os
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
import yaml

from toolbus_cli.commands.options import AsJson
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.errors import CommandError
from toolbus_cli.http_client import OK, send
from toolbus_cli.importing import curl as curls
from toolbus_cli.importing import postman as collections
from toolbus_cli.importing import yaml_insert
from toolbus_cli.importing.environment_variables import environment_variable
from toolbus_cli.importing.openapi_builder import Sketch, sketched
from toolbus_common.definitions.visible_text import printable
from toolbus_common.openapi import Api, DocumentError, read, translated
from toolbus_common.openapi.servers import base_of

LARGEST = 16 * 1024 * 1024
LONGEST_SHOWN = 70
LONGEST_NAME = 32

Name = Annotated[
    str, typer.Option("--name", help="The server's name; default: derived from the title.")
]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="Add the server to this toolbus.yaml.")
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        help="Include only these operations: operationId, tag:NAME, /path/*, 'GET /path/*'; "
        "repeatable.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="Exclude these operations, in the same forms; repeatable."),
]


def openapi(
    source: Annotated[str, typer.Argument(help="The document's URL or file.")],
    *,
    name: Name = "",
    base_url: Annotated[str, typer.Option(help="The base URL of the operations.")] = "",
    include: Include = None,
    exclude: Exclude = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Import an HTTP API from its OpenAPI document and list its tools.

    Without -o, the server's configuration is printed, to be added under 'servers:' in toolbus.yaml.
    """
    root = _document(source)
    server: dict[str, Any] = {"openapi": _beside(source, output)}
    operations = {"include": include, "exclude": exclude}
    chosen = {kind: patterns for kind, patterns in operations.items() if patterns}
    try:
        base = base_url or base_of(root.get("servers"), source)
        api = translated(
            root, source, base_url=base,
            include=tuple(include or ("*",)), exclude=tuple(exclude or ()),
        )  # fmt: skip
    except DocumentError as error:
        message = str(error).replace("set base_url", "pass --base-url")
        raise CommandError(f"{source} cannot be imported. {message}") from error
    called = name or _named(_title(root))
    server["base_url"] = base
    if api.schemes and _wanted(api):
        server["credentials"] = {
            each: f"${{env:{environment_variable(called, each)}}}" for each in _wanted(api)
        }
    if chosen:
        server["operations"] = chosen
    _finish(called, server, api, output, as_json=as_json)


def curl(
    line: Annotated[str, typer.Argument(help="A complete cURL command, in single quotes.")],
    *,
    name: Name = "",
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Import one request as a tool; mark parameters in its path as {id}.

    The command writes NAME.openapi.yaml next to the file of -o, or into the current directory. A
    credential is replaced by a reference to an environment variable.
    """
    sample = curls.read(line)
    host = urlsplit(sample.url).hostname or "api"
    called = name or _named(host)
    _take_sketch(sketched([sample], host, called), called, output, as_json=as_json)


def postman(
    file: Annotated[Path, typer.Argument(help="A collection, exported as v2.1.")],
    *,
    name: Name = "",
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Import the requests of a Postman collection as tools.

    The command writes NAME.openapi.yaml next to the file of -o, or into the current directory.
    Credentials are replaced by references to environment variables.
    """
    title, samples, lost = collections.read(_text(file).decode("utf-8-sig", "replace"))
    called = name or _named(title)
    sketch = sketched(samples, title, called)
    sketch.notes += lost
    _take_sketch(sketch, called, output, as_json=as_json)


def _take_sketch(sketch: Sketch, name: str, output: Path | None, *, as_json: bool) -> None:
    path = (output.parent if output else Path()) / f"{name}.openapi.yaml"
    if path.exists():
        raise CommandError(f"{path} already exists; choose another server name with --name.")
    try:
        api = translated(read(sketch.as_yaml().encode()), path.name)
    except DocumentError as error:
        raise CommandError(f"The imported document is not usable. {error}") from error
    server: dict[str, Any] = {"openapi": f"./{path.name}"}
    if sketch.credentials:
        server["credentials"] = sketch.credentials
    _finish(name, server, api, output, as_json=as_json, sketch=sketch, path=path)


def _finish(
    name: str,
    server: dict[str, Any],
    api: Api,
    output: Path | None,
    *,
    as_json: bool,
    sketch: Sketch | None = None,
    path: Path | None = None,
) -> None:
    """Write the server's configuration and list its tools."""
    text = yaml_insert.placed(output, name, server) if output is not None else ""
    if sketch is not None and path is not None:
        yaml_insert.write(path, sketch.as_yaml())
    if output is not None:
        yaml_insert.write(output, text)
    notes = list(sketch.notes) if sketch is not None else []
    notes += [f"Skipped '{each}': {why}." for each, why in api.left_out.items()]
    for note in notes:
        typer.echo(printable(note), err=True)
    if as_json:
        show_json({"name": name, "server": server, "tools": sorted(api.operations), "notes": notes})
        return
    rows = [
        (each, operation.method, operation.path, _first_line(operation.definition["description"]))
        for each, operation in sorted(api.operations.items())
    ]
    show_table(("tool", "method", "path", "description"), rows, "No tool.")
    if output is not None:
        say("", f"Added the server '{name}' to {output}.")
    else:
        say("", yaml.safe_dump({"servers": {name: server}}, sort_keys=False).rstrip())


def _wanted(api: Api) -> list[str]:
    """Return the security schemes that operations require."""
    named = {
        each for operation in api.operations.values() for one in operation.security for each in one
    }
    return [each for each in api.schemes if each in named]


def _document(source: str) -> dict[str, Any]:
    remote = source.startswith(("http://", "https://"))
    try:
        return read(_fetched(source) if remote else _text(Path(source)))
    except DocumentError as error:
        raise CommandError(f"{source} cannot be imported. {error}") from error


def _text(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST:
            raise CommandError(f"{path} is larger than {LARGEST >> 20} MiB; import a part of it.")
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise CommandError(f"{path} cannot be read ({reason}); give another file.") from error


def _fetched(url: str) -> bytes:
    """Fetch the document at a URL. Redirects are reported and not followed, as in the executor."""
    headers = {"Accept": "application/json, */*;q=0.5"}
    try:
        response = send("GET", url, headers=headers, max_bytes=LARGEST + 1)
    except OSError as error:
        raise CommandError(
            f"{url} cannot be fetched ({error}); download it and give the file."
        ) from error
    if response.status != OK:
        moved = response.headers.get("location")
        hint = f" and redirects to {moved[:200]}" if moved else ""
        raise CommandError(
            f"{url} returned HTTP {response.status}{hint}; give the URL of the document itself."
        )
    if len(response.body) > LARGEST:
        raise CommandError(
            f"{url} is larger than {LARGEST >> 20} MiB; save a part of it as a file."
        )
    return response.body


def _beside(source: str, output: Path | None) -> str:
    """Return the path of `source` relative to the output file; a URL is returned unchanged."""
    if "://" in source or output is None:
        return source
    return os.path.relpath(source, output.resolve().parent)


def _title(root: dict[str, Any]) -> str:
    info = root.get("info")
    return str(info.get("title") or "") if isinstance(info, dict) else ""


def _named(title: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return plain[:LONGEST_NAME].strip("-") or "api"


def _first_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_SHOWN else f"{line[: LONGEST_SHOWN - 1]}…"
