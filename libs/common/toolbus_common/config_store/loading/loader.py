"""Loading of a configuration from text, with a report of every error."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from pydantic import ValidationError

from toolbus_common.access.anonymous import FORCE, remote_reason
from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.config import Admin, Configuration, Key
from toolbus_common.config.access.expiry import expired
from toolbus_common.config_store.loading import guards, references, rules
from toolbus_common.config_store.loading.document import ConfigProblem, Document, read
from toolbus_common.config_store.loading.messages import describe_error

SHORTEST_SECRET = 24
VERSION = 1  # of the file; it changes when an older file would get another meaning
_MAY_BE_BARE = ("customers", "teams", "users", "keys", "groups")
Environ = Mapping[str, str] | None
NO_REFERENCE = "cannot be a reference here; give the secret itself, or none to generate one"
NOT_SET = "the environment has no {}; set it before starting"
_HASH = re.compile(r"[0-9a-f]{64}")
_VARIABLE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The result of validating a text. If there are problems, the configuration is empty.

    `secrets` maps the names of keys to the secrets in the text or the environment. They are never
    stored.
    """

    configuration: Configuration = field(default_factory=Configuration)
    problems: tuple[ConfigProblem, ...] = ()
    warnings: tuple[ConfigProblem, ...] = ()
    secrets: dict[str, str] = field(default_factory=dict, repr=False)


def load(text: str, environ: Environ, base_dir: PurePath | None = None) -> Loaded:
    """Validate the whole text of a configuration.

    Relative file names are resolved against `base_dir`. If `environ` is None, references to
    variables are errors.
    """
    document = read(text)
    if base_dir is not None and isinstance(document.data, dict):
        _find_documents(document.data, base_dir)
    return check(document, environ)


def check(document: Document, environ: Environ) -> Loaded:
    """Validate a parsed document as a whole. The data of the document is modified."""
    found = list(document.problems)
    if document.data is None and not found:
        document.data = {}
    if not isinstance(document.data, dict):
        found = found or [
            ConfigProblem(1, "", "the file must have sections such as servers: and keys:")
        ]
        return Loaded(problems=tuple(found))
    _drop_empty(document.data)
    found += _of_another_version(document)
    found += [
        *references.problems(document), *rules.problems(document), *guards.problems(document),
    ]  # fmt: skip
    secrets: dict[str, str] = {}
    found += _take_secrets(document, environ, secrets)
    configuration, errors = _validated(document)
    found += _reachable_anonymously(document, configuration, environ or {})
    problems = tuple(sorted({*found, *errors}))
    warnings = [
        *references.warnings(document, environ or {}),
        *rules.warnings(document, configuration),
        *guards.warnings(document, configuration),
        *_expired(document, configuration),
        *_without_secret(document, configuration),
        *_open_to_everyone(document, configuration),
    ]
    return Loaded(configuration, problems, tuple(sorted(set(warnings))), secrets)


def _find_documents(data: dict[str, Any], base_dir: PurePath) -> None:
    """Make the paths of OpenAPI documents absolute: executors have another working directory."""
    servers = data.get("servers")
    for server in servers.values() if isinstance(servers, dict) else ():
        path = server.get("openapi") if isinstance(server, dict) else None
        if isinstance(path, str) and path and "://" not in path:
            server["openapi"] = str(base_dir / path)


def _drop_empty(data: dict[str, Any]) -> None:
    """Remove empty sections, and give entries without a value their defaults."""
    for name, section in list(data.items()):
        if section is None and name in Configuration.model_fields:
            del data[name]
        elif isinstance(section, dict) and name in _MAY_BE_BARE:
            section.update({key: {} for key, value in section.items() if value is None})


def _of_another_version(document: Document) -> Iterator[ConfigProblem]:
    """Remove the version of the file, and yield a problem if this Toolbus cannot read it."""
    version = document.data.pop("version", VERSION)
    if type(version) is not int or version < 1:
        yield document.problem(("version",), f"must be a whole number from 1 to {VERSION}")
    elif version > VERSION:
        yield document.problem(
            ("version",),
            f"is {version}, but this Toolbus reads files up to version {VERSION}; use a newer "
            "Toolbus, or write the file for this one",
        )


def _take_secrets(
    document: Document, environ: Environ, secrets: dict[str, str]
) -> Iterator[ConfigProblem]:
    """Replace every secret with its hash, and yield the problems of invalid secrets."""
    owners: dict[str, str] = {}
    for section, name, entry in _with_secrets(document.data):
        yield from _checked_hash(document, (section, name), entry)
        if "secret" not in entry:
            continue
        path = (section, name, "secret")
        secret, error = _resolved(entry.pop("secret"), environ)
        if error:
            yield document.problem(path, error)
        elif secret in owners:
            yield document.problem(path, f"is also the secret of {owners[secret]}; use another")
        else:
            owners[secret] = f"the {section.removesuffix('s')} '{name}'"
            entry["secret_hash"] = hash_of(key_digest_of(secret))
            if section == "keys":
                secrets[name] = secret


def _with_secrets(data: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for section in ("keys", "admins", "readers"):
        entries = data.get(section)
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            if isinstance(entry, dict):
                yield section, str(name), entry


def _checked_hash(
    document: Document, path: tuple[str, str], entry: dict[str, Any]
) -> Iterator[ConfigProblem]:
    if "secret_hash" not in entry:
        return
    where = (*path, "secret_hash")
    if "secret" in entry:
        yield document.problem(where, "is given in addition to 'secret'; keep one of them")
    elif not _HASH.fullmatch(str(entry["secret_hash"])):
        yield document.problem(
            where, "must be 64 hex digits: SHA-256 of the hex SHA-256 of the secret"
        )


def _resolved(secret: Any, environ: Environ) -> tuple[str, str]:
    """Return the secret and an error message, one of which is empty.

    The message never contains the secret.
    """
    if not isinstance(secret, str):
        return "", "must be text; put it in quotes"
    whole = _VARIABLE.fullmatch(secret)
    source = ""
    if whole is not None:
        source = f" (from {whole[1]})"
        secret = (environ or {}).get(whole[1], "")
        if not secret:
            return "", NO_REFERENCE if environ is None else NOT_SET.format(whole[1])
    elif "${" in secret:
        return "", "must be a secret or exactly ${env:NAME}"
    if len(secret) < SHORTEST_SECRET:
        return "", f"is shorter than {SHORTEST_SECRET} characters{source}; make it longer"
    if not (secret.isascii() and secret.isprintable() and " " not in secret):
        return "", f"must be printable ASCII without spaces{source}: it is sent in a header"
    return secret, ""


def _validated(document: Document) -> tuple[Configuration, list[ConfigProblem]]:
    try:
        return Configuration.model_validate(document.data), []
    except ValidationError as error:
        found = []
        for each in error.errors(include_url=False):
            path, message = describe_error(each, Configuration)
            found.append(document.problem(path, message))
        return Configuration(), found


def _expired(document: Document, configuration: Configuration) -> Iterator[ConfigProblem]:
    """Yield warnings about keys and admin keys that have expired."""
    now = datetime.now(UTC).timestamp()
    entries: tuple[tuple[str, Mapping[str, Key | Admin]], ...] = (
        ("keys", configuration.keys), ("admins", configuration.admins),
    )  # fmt: skip
    for section, expiring in entries:
        for name, entry in expiring.items():
            if expired(entry.expires, now):
                noun = section.removesuffix("s")
                message = f"is in the past: the {noun} has no access; set a later date or delete it"
                yield document.problem((section, name, "expires"), message)


def _without_secret(document: Document, configuration: Configuration) -> Iterator[ConfigProblem]:
    """Yield warnings about readers without a secret. Toolbus generates no secret for readers."""
    for name, reader in configuration.readers.items():
        if not reader.secret_hash:
            message = (
                "has no secret; set one, unless one is stored already: without it the "
                "reader has no access"
            )
            yield document.problem(("readers", name), message)


def _reachable_anonymously(
    document: Document, configuration: Configuration, environ: Mapping[str, str]
) -> Iterator[ConfigProblem]:
    """Yield a problem if other machines can use the gateway without a credential."""
    if not configuration.anonymous.on or configuration.anonymous.allow_remote:
        return
    names = ("PUBLIC_URL", "TRUSTED_PROXIES", "PROXY_PROTOCOL_FROM")
    settings = (environ.get(f"TOOLBUS_{each}", "") for each in names)
    reason = remote_reason(environ.get("TOOLBUS_HTTP_HOST") or "127.0.0.1", *settings)
    if reason:
        yield document.problem(
            ("anonymous",),
            f"permits callers without a credential, and {reason}, so other machines could use "
            f"these tools. Listen on 127.0.0.1 only, or permit this with {FORCE}",
        )


def _open_to_everyone(document: Document, configuration: Configuration) -> Iterator[ConfigProblem]:
    if configuration.anonymous.on and configuration.anonymous.allow_remote:
        yield document.problem(
            ("anonymous", "allow_remote"),
            "permits every client that reaches the gateway to use these tools without a key",
        )
