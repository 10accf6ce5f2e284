"""Commands that manage contexts."""

import ipaddress
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from toolbus_cli.commands.options import AsJson
from toolbus_cli.commands.output import say, show_json, show_rows
from toolbus_cli.errors import CommandError
from toolbus_cli.remote import contexts
from toolbus_cli.remote.client import request
from toolbus_cli.remote.contexts import LOCAL, Context

SCHEMES = ("http", "https")
Name = Annotated[str, typer.Argument(help="The context's name.")]


def add(
    name: Name,
    url: Annotated[str, typer.Argument(help="The gateway's URL, such as https://toolbus.example.")],
    *,
    key_file: Annotated[
        str,
        typer.Option(help="The file with the admin key; - is standard input. Default: a prompt."),
    ] = "",
    ca: Annotated[
        Path | None,
        typer.Option(help="A file with certificate authorities to trust instead of the system's."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add or replace a context, if the gateway accepts its admin key."""
    if name == LOCAL or not name or name.startswith("-"):
        raise CommandError(
            f"'{name}' cannot be the name of a context; '{LOCAL}' is the installation on this "
            "machine."
        )
    context = Context(name, checked_url(url), _key(key_file), str(ca.absolute()) if ca else "")
    caller = request(context, "GET", "/self")
    contexts.store(contexts.stored() | {name: context}, contexts.stored_name())
    if as_json:
        show_json({"name": name, "url": context.url, "role": caller["role"]})
    else:
        say(f"Added the context '{name}' with the role {caller['role']}.")


def use(name: Name) -> None:
    """Use a context in all commands until another is used; 'local' is this machine."""
    if name != LOCAL:
        contexts.named(name)
    contexts.store(contexts.stored(), name)
    say("Commands work on this machine." if name == LOCAL else f"Commands work on '{name}'.")


def list_contexts(*, as_json: AsJson = False) -> None:
    """List the contexts, without their keys."""
    current = contexts.chosen_name()
    here = Context(LOCAL, "", "")
    rows = [
        {"name": each.name, "url": each.url, "in use": each.name == current}
        for each in (here, *contexts.stored().values())
    ]
    show_rows(("name", "url", "in use"), rows, "", as_json=as_json)


def remove(name: Name) -> None:
    """Remove a context with its key. The key itself stays valid."""
    removed = contexts.named(name)
    left = {each: kept for each, kept in contexts.stored().items() if each != name}
    current = contexts.stored_name()
    contexts.store(left, LOCAL if current == name else current)
    say(f"Removed '{name}'. Its key is still valid at {removed.url} until you revoke it.")


def _key(key_file: str) -> str:
    """Return the admin key from a file, standard input or a prompt."""
    if not key_file and sys.stdin.isatty():
        key = str(typer.prompt("Admin key", hide_input=True))
    elif not key_file:
        raise CommandError("There is no terminal for a prompt; give a file with --key-file.")
    else:
        try:
            key = sys.stdin.read() if key_file == "-" else Path(key_file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(
                f"'{key_file}' cannot be read ({error}); name a file with an admin key."
            ) from error
    if not key.strip().isascii() or not key.strip() or len(key.split()) != 1:
        raise CommandError("The admin key must be one word, as 'toolbus admins create' prints it.")
    return key.strip()


def checked_url(text: str) -> str:
    """Return the base URL of a gateway.

    Raises:
        CommandError: it is not https, and does not lead to this machine.

    """
    try:
        target = urlsplit(text)
        host = target.hostname or ""
        plain = not any((target.query, target.fragment, target.username))
    except ValueError:
        plain, host = False, ""
    if not plain or not host or target.scheme not in SCHEMES:
        raise CommandError("The URL must be like https://toolbus.example, without a query.")
    if target.scheme == "http" and not _is_loopback(host):
        raise CommandError(
            "The URL must begin with https://, because the admin key is sent to it; http:// is "
            "accepted for this machine only, for example for a tunnel."
        )
    return text.rstrip("/").removesuffix("/mcp")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
