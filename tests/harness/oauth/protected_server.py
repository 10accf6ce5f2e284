"""Protected MCP server of the SDK as a separate process.

Usage: `python protected_server.py PORT ISSUER SCOPES`. Tokens must be issued for its URL, or for
RESOURCE. It introspects every token, and `whoami` returns the token's subject. A token that is
bound to a key is accepted only with a DPoP proof of that key.
"""

import os
import ssl
import sys
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import httpx2
import uvicorn
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from starlette.responses import Response

from harness.oauth.dpop_proofs import read


class Introspecting:
    """Token verifier that introspects at the authorization server."""

    def __init__(self, issuer: str, ca: str = "") -> None:
        self._issuer = issuer
        self._verify = ssl.create_default_context(cafile=ca or None)

    async def verify_token(self, token: str) -> AccessToken | None:
        found = await self.introspect(token)
        return AccessToken.model_validate(found) if found else None

    async def introspect(self, token: str) -> dict[str, Any]:
        async with httpx2.AsyncClient(verify=self._verify) as http:
            answer = await http.post(f"{self._issuer}/introspect", data={"token": token})
        found: dict[str, Any] = answer.json()
        return {name: value for name, value in found.items() if value is not None}


class Proving:
    """Middleware that checks DPoP proofs before the SDK, which supports only bearer tokens."""

    def __init__(self, app: Any, asks: Introspecting, url: str) -> None:
        self._app, self._verifier, self._url = app, asks, url
        self._used: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        scheme, _, token = headers.get(b"authorization", b"").decode().partition(" ")
        if token:
            known = await self._verifier.introspect(token)
            wrong = self._wrong(scope, scheme, token, headers.get(b"dpop", b"").decode(), known)
            if wrong:
                fields = {"WWW-Authenticate": f'DPoP error="{wrong}"'}
                fields |= {"DPoP-Nonce": known["nonce"]} if wrong == "use_dpop_nonce" else {}
                await Response(status_code=401, headers=fields)(scope, receive, send)
                return
            headers[b"authorization"] = b"Bearer " + token.encode()
            scope = {**scope, "headers": list(headers.items())}
        await self._app(scope, receive, send)

    def _wrong(self, scope: Any, scheme: str, token: str, proof: str, known: dict[str, Any]) -> str:
        """Return the error code of RFC 9449; empty if the proof is valid."""
        if not known or not known["key"]:
            return "invalid_token" if scheme == "DPoP" else ""
        if scheme != "DPoP":
            return "invalid_token"
        claims, key = read(proof)
        ath = urlsafe_b64encode(sha256(token.encode()).digest()).rstrip(b"=").decode()
        meant = (claims["htm"], claims["htu"], claims["ath"], key)
        if meant != (scope["method"], self._url, ath, known["key"]) or claims["jti"] in self._used:
            return "invalid_dpop_proof"
        self._used.add(claims["jti"])
        wanted = known["nonce"]
        return "use_dpop_nonce" if wanted and claims.get("nonce") != wanted else ""


def server_of(asks: Introspecting, issuer: str, url: str, scopes: list[str]) -> MCPServer:
    """Return the MCP server."""
    auth = AuthSettings(
        issuer_url=issuer,
        resource_server_url=url,
        required_scopes=scopes or None,
        validate_token_resource=True,
    )
    server = MCPServer("protected", token_verifier=asks, auth=auth)

    @server.tool()
    def whoami() -> str:
        """Return the subject of the call's token."""
        token = get_access_token()
        return str(token.subject) if token is not None else "nobody"

    @server.resource("mail://ann/drafts")
    def drafts() -> str:
        """Return a text that only ann has permission to read."""
        return "Dear Bob"

    return server


def main(port: int, issuer: str, scopes: list[str]) -> None:
    """Serve until the process is killed."""
    asks, url = Introspecting(issuer), f"http://127.0.0.1:{port}/mcp"
    app = Proving(
        server_of(asks, issuer, os.environ.get("RESOURCE") or url, scopes).streamable_http_app(),
        asks,
        url,
    )
    uvicorn.run(app, port=port, log_level="error")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
