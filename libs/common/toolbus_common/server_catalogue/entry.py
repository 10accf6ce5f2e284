"""An entry of the catalogue: the description of one server, with its source document (no I/O).

An entry has no values: a setting names what the operator must provide, and a secret setting is
always a reference in the resulting configuration.
"""

import re
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from toolbus_common.config import Name, Reads, Writes
from toolbus_common.config.base import ConfigModel
from toolbus_common.config.servers.isolation import Network, network_of

Text = Annotated[str, Field(min_length=1, max_length=512)]
Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
HTTPS = r"https://[^/\s?#@]+(?:[/?][^\s#]*)?"
Https = Annotated[str, Field(pattern=f"^{HTTPS}$", max_length=1024)]
PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
# Names of packages: no option (`-x`), no path, and no address can be written in their place.
PACKAGE_NAMES = {
    "npm": re.compile(r"(?:@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*"),
    "pypi": re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"),
}
_VERSION = r"^[0-9][0-9A-Za-z.+!-]{0,63}$"  # one release; never a range or a tag


class Package(ConfigModel):
    """A program in a package registry. `program` is its command, if that differs from the name."""

    registry: Literal["npm", "pypi"]
    name: Annotated[str, Field(max_length=214)]
    version: Annotated[str, Field(pattern=_VERSION)]
    program: Annotated[str, Field(pattern=r"^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")] = ""
    arguments: tuple[Text, ...] = Field(default=(), max_length=32)

    @model_validator(mode="after")
    def _has_valid_name(self) -> Self:
        if not PACKAGE_NAMES[self.registry].fullmatch(self.name):
            raise ValueError(f"{self.name[:80]!r} is not the name of a package of {self.registry}")
        return self

    @property
    def command_name(self) -> str:
        """The command that the installed package has."""
        return self.program or self.name.rpartition("/")[2]


class Setting(ConfigModel):
    """A value that the operator provides.

    It replaces `{name}` in the URL, a header, an argument or `cwd`; a setting that is used in none
    of them is an environment variable of the program.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
    description: Text
    secret: bool = False
    required: bool = True
    default: Annotated[str, Field(max_length=512)] = ""

    @model_validator(mode="after")
    def _has_no_secret_default(self) -> Self:
        if self.secret and self.default:
            raise ValueError("a secret has no default; remove it")
        return self


class Authorization(ConfigModel):
    """How the server authorizes Toolbus.

    `registration` says how Toolbus becomes a client of the server's authorization server: by
    itself (`dynamic`), or with a client that the operator registers first (`manual`).
    """

    kind: Literal["none", "key", "oauth"] = "none"
    scopes: tuple[Text, ...] = Field(default=(), max_length=64)
    registration: Literal["dynamic", "manual", "unknown"] = "unknown"


class Source(ConfigModel):
    """The document that the entry was written from, and its date."""

    url: Https
    date: date


class CatalogueEntry(ConfigModel):
    """The description of one server.

    A server has a `url` (with `transport` http or sse), a `package`, or a `container` image with a
    digest. `reads` and `writes` are the labels of information flow; without them they are guessed.
    `grants` are the tools, by the server's own names, that a first key can be granted without the
    right to change something. `network` is what the installed program needs. `cwd` can be a
    setting.
    """

    name: Name
    title: Text
    publisher: Text
    description: Text
    topics: tuple[Word, ...] = Field(default=(), max_length=16)
    url: Annotated[str, Field(max_length=1024)] = ""
    transport: Literal["http", "sse", "stdio"]
    package: Package | None = None
    container: Annotated[str, Field(max_length=512)] = ""
    headers: dict[Text, Text] = Field(default_factory=dict, max_length=16)
    authorization: Authorization = Authorization()
    settings: tuple[Setting, ...] = Field(default=(), max_length=64)
    reads: tuple[Reads, ...] | None = None
    writes: Writes | None = None
    grants: tuple[Text, ...] = Field(default=(), max_length=64)
    network: Network = "any"
    cwd: str = ""
    note: Annotated[str, Field(max_length=1024)] = ""
    source: Source

    @field_validator("network", mode="before")
    @classmethod
    def _is_network(cls, network: object) -> Network:
        return network_of(network)

    @field_validator("url")
    @classmethod
    def _is_https(cls, url: str) -> str:
        if url and not re.fullmatch(HTTPS, url):
            raise ValueError("must be a URL with https:// and a host, without a user")
        return url

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        kinds = [bool(self.url), self.package is not None, bool(self.container)]
        if kinds.count(True) != 1:
            raise ValueError("needs exactly one of 'url', 'package' and 'container'")
        if (self.transport == "stdio") is bool(self.url):
            raise ValueError(
                "a server with 'url' has the transport http or sse, a program has stdio"
            )
        return self

    @model_validator(mode="after")
    def _has_known_settings(self) -> Self:
        names = [each.name for each in self.settings]
        if len(set(names)) < len(names):
            raise ValueError("names a setting twice")
        if unknown := self.placeholders - set(names):
            raise ValueError(f"has no setting {min(unknown)!r}, which it uses")
        if self.url and (unused := set(names) - self.placeholders):
            raise ValueError(f"uses the setting {min(unused)!r} nowhere")
        secrets = {each.name for each in self.settings if each.secret}
        arguments = self.package.arguments if self.package else ()
        if shown := secrets & _placeholders(self.url, self.cwd, *arguments):
            raise ValueError(
                f"uses the secret {min(shown)!r} outside of headers and environment, where "
                "it would be visible"
            )
        return self

    @property
    def placeholders(self) -> set[str]:
        """The names of the settings that replace a placeholder."""
        arguments = self.package.arguments if self.package else ()
        return _placeholders(self.url, self.cwd, *arguments, *self.headers.values())

    @property
    def variables(self) -> tuple[Setting, ...]:
        """The settings that are environment variables of the program."""
        used = self.placeholders
        return tuple(each for each in self.settings if each.name not in used)


def _placeholders(*texts: str) -> set[str]:
    return {name for text in texts for name in PLACEHOLDER.findall(text)}
