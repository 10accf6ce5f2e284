"""Gateway of the browser tests, with its accounts and sign-in."""

from dataclasses import dataclass
from typing import Any

from harness.clients.chromium_browser import Person
from harness.gateway.launched_gateway import Launched
from harness.oauth import openid_provider

PASSWORD = "correct horse battery"
BOT, BOSS, ROOT = (f"tbk_{name}_the-secret-of-the-pages" for name in ("bot", "boss", "root"))
BOB = "tbk_bob_the-secret-of-the-pages"
PATHS = """forbid(principal, action == Action::"tools/call", resource in Server::"echo")
when { context.arguments has path && context.arguments.path like "/etc*" };
"""


@dataclass
class Gateway:
    """A running Toolbus for browser tests."""

    launched: Launched
    second_factor: str

    @property
    def base(self) -> str:
        """The origin of the gateway."""
        return str(self.launched.ready["endpoint"]).removesuffix("/mcp")


def configuration(echo: str, docs: str, corp: str) -> dict[str, Any]:
    """Write toolbus.yaml: two kinds of sign-in, a server with user tokens, and an approval."""
    return {
        "servers": {"echo": {"url": echo}, "docs": {"url": docs, "oauth": {"tokens": "user"}}},
        "users": {"ann": {}, "bob": {}},
        "rules": {"paths": {"cedar": PATHS, "shadow": True, "reason": "Reads the system's files."}},
        "issuers": {
            "corp": {
                "url": corp,
                "algorithms": ["ES256"],
                "client_id": openid_provider.CLIENT,
                "secret": "${env:CORP_SECRET}",
                "user": "login",
            }
        },
        "access": {
            "ops": {"claims": {"groups": "ops"}, "role": "viewer"},
            "staff": {"claims": {"groups": "staff"}, "tools": ["echo__say", "docs__*"]},
            "corp": {"issuer": "corp", "claims": {"groups": "staff"}, "tools": ["echo__say"]},
        },
        "keys": {
            "root": {"secret": ROOT, "tools": ["*"]},
            "bob": {"secret": BOB, "user": "bob", "tools": ["*"]},
            "bot": {"secret": BOT, "tools": ["*"], "approve": ["echo__say"]},
            "boss": {"secret": BOSS, "tools": [], "rights": ["approve"]},
        },
    }


def account(launched: Launched, name: str, *options: str) -> str:
    """Create a local account, and return the output of the command."""
    words = ("accounts", "add", name, "--group", "staff", "--password-stdin", *options)
    added = launched.toolbus(*words, stdin=f"{PASSWORD}\n")
    assert added.returncode == 0, added.stderr
    return added.stdout


def signs_in(person: Person, name: str = "bob") -> None:
    """Fill in and send the sign-in form."""
    person.sees("Sign in")
    person.fills(Name=name, Password=PASSWORD)
    person.presses("Sign in")
