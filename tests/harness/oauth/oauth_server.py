"""Authorization server of the MCP SDK as a separate process. It consents without a user.

Usage: `python oauth_server.py PORT` or `PORT MTLS_PORT CERTIFICATE KEY AUTHORITY`. The second form
uses TLS, and MTLS_PORT accepts only clients with a certificate of the authority.

POST /say sets these members:

- `subject`: the subject of tokens.
- `seconds`: the lifetime of tokens.
- `iss`: the issuer in the redirect (null: none).
- `document`: members of the metadata.
- `nonce`: the nonce that DPoP proofs must contain.
- `unbound`: whether proofs are ignored.
- `certificate`: the thumbprint of the only client that gets tokens. They are bound to it (RFC
  8705).
- `secret_seconds`: the lifetime of a client secret (null: unlimited).
- `jwks`: the keys of trusted assertions.

POST /introspect introspects a token. POST /expire ends all tokens. POST /give creates refresh
tokens. POST /forget deletes all clients. GET /seen returns the requests to the token endpoint.
"""

import asyncio
import json
import secrets
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path
from ssl import CERT_NONE, CERT_REQUIRED
from typing import Any
from urllib.parse import parse_qsl

sys.path.insert(0, str(Path(__file__).parents[2]))

import uvicorn
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    RefreshToken,
    construct_redirect_uri,
)
from mcp.server.auth.routes import build_metadata, create_auth_routes
from mcp.server.auth.settings import ClientRegistrationOptions, RevocationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from harness.oauth.client_certificates import serve, shown
from harness.oauth.dpop_proofs import read

MACHINE = "gateway"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class Provider:
    """The state of the server."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.behaviour: dict[str, Any] = {
            "subject": "ann@far", "seconds": 3600, "iss": issuer, "document": {}, "nonce": "",
            "unbound": False, "certificate": "", "secret_seconds": None,
        }  # fmt: skip
        self.proofs: set[str] = set()
        self.keys: dict[str, str] = {}  # thumbprint of the key of each token
        self.certificates: dict[str, str] = {}  # thumbprint of the certificate of each token
        self.seen: list[dict[str, str]] = []
        self.clients: dict[str, OAuthClientInformationFull] = {}
        self.codes: dict[str, AuthorizationCode] = {}
        self.tokens: dict[str, AccessToken] = {}
        self.refreshes: dict[str, RefreshToken] = {}

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self.clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        assert client_info.client_id
        self.clients[client_info.client_id] = client_info

    async def authorize(self, client: OAuthClientInformationFull, params: Any) -> str:
        code = secrets.token_urlsafe(20)
        self.codes[code] = AuthorizationCode(
            code=code,
            scopes=params.scopes or [],
            expires_at=time.time() + 60,
            client_id=str(client.client_id),
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
            subject=self.behaviour["subject"],
        )
        fields = {"code": code, "state": params.state, "iss": self.behaviour["iss"]}
        return construct_redirect_uri(
            str(params.redirect_uri), **{name: value for name, value in fields.items() if value}
        )

    async def load_authorization_code(self, client: Any, code: str) -> AuthorizationCode | None:  # noqa: ARG002
        return self.codes.get(code)

    async def exchange_authorization_code(self, client: Any, code: AuthorizationCode) -> OAuthToken:
        del self.codes[code.code]
        return self.give(client.client_id, code.scopes, code.resource, code.subject)

    async def load_refresh_token(self, client: Any, refresh: str) -> RefreshToken | None:  # noqa: ARG002
        return self.refreshes.get(refresh)

    async def exchange_refresh_token(
        self, client: Any, refresh: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        del self.refreshes[refresh.token]  # it can be used only once
        return self.give(client.client_id, scopes, refresh.resource, refresh.subject)

    async def load_access_token(self, token: str) -> AccessToken | None:
        return self.tokens.get(token)

    async def revoke_token(self, token: Any) -> None:
        self.tokens.pop(token.token, None)
        self.refreshes.pop(token.token, None)

    async def exchange_identity_assertion(self, client: Any, params: Any) -> OAuthToken:
        raise NotImplementedError

    def vouched(self, assertion: str) -> str | None:
        """Return the subject of a valid assertion for this server.

        Without an assertion, return the name of a machine.
        """
        if not assertion:
            return "machine"
        try:
            keys = KeySet.import_key_set(self.behaviour["jwks"])
            claims = jwt.decode(assertion, keys, algorithms=["ES256"]).claims
        except (JoseError, ValueError, KeyError):
            return None
        return str(claims["sub"]) if claims["aud"] == self.issuer else None

    def give(
        self, client: str, scopes: list[str], resource: str | None, subject: str | None
    ) -> OAuthToken:
        token, refresh = f"far~{secrets.token_urlsafe(20)}", f"again~{secrets.token_urlsafe(20)}"
        seconds = self.behaviour["seconds"]
        self.tokens[token] = AccessToken(
            token=token, client_id=client, scopes=scopes, resource=resource, subject=subject,
            expires_at=int(time.time() + seconds),
        )  # fmt: skip
        self.refreshes[refresh] = RefreshToken(
            token=refresh, client_id=client, scopes=scopes, resource=resource, subject=subject
        )
        return OAuthToken(
            access_token=token, expires_in=seconds, scope=" ".join(scopes), refresh_token=refresh
        )


class Application:
    """The routes of the SDK, after additional routes for the tests."""

    def __init__(self, issuer: str) -> None:
        self._provider, url = Provider(issuer), AnyHttpUrl(issuer)
        registration = self._registration = ClientRegistrationOptions(
            enabled=True, valid_scopes=["read", "write"]
        )
        revocation = RevocationOptions(enabled=True)
        metadata = build_metadata(url, None, registration, revocation)
        result = metadata.model_dump(mode="json", exclude_none=True)
        more = {"issuer": issuer, "authorization_response_iss_parameter_supported": True}
        self._document = result | more
        ours = [
            Route("/.well-known/oauth-authorization-server", self._described),
            Route("/say", self._say, methods=["POST"]),
            Route("/introspect", self._introspect, methods=["POST"]),
            Route("/expire", self._expire, methods=["POST"]),
            Route("/forget", self._forget, methods=["POST"]),
            Route("/give", self._give, methods=["POST"]),
            Route("/seen", self._seen),
        ]
        theirs = create_auth_routes(self._provider, url, None, registration, revocation)
        self._sdk = Starlette(routes=[*ours, *theirs])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Record token requests, and process client credentials, which the SDK does not support."""
        if scope["type"] != "http" or scope["path"] != "/token":
            await self._sdk(scope, receive, send)
            return
        body = await Request(scope, receive).body()
        form = dict(parse_qsl(body.decode()))
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        about = {name: headers.get(name, "") for name in ("authorization", "dpop")}
        self._provider.seen.append(form | about | {"certificate": shown(scope)})
        wanted = self._provider.behaviour["certificate"]
        if wanted and shown(scope) != wanted:
            await JSONResponse({"error": "invalid_client"}, 401)(scope, receive, send)
            return
        proof, key = headers.get("dpop", ""), ""
        if proof and not self._provider.behaviour["unbound"]:
            key, wrong = self._proved(proof, form.get("refresh_token", ""))
            if wrong is not None:
                await wrong(scope, receive, send)
                return
        status, result = await self._given(scope, form, body)
        self._provider.certificates[result.get("access_token", "")] = wanted
        if status == 200 and key:
            result["token_type"] = "DPoP"
            for name in ("access_token", "refresh_token"):
                self._provider.keys[result.get(name, "")] = key
        await JSONResponse(result, status)(scope, receive, send)

    def _proved(self, proof: str, refresh: str) -> tuple[str, Response | None]:
        """Return the key thumbprint of a proof for this endpoint, or an error response."""
        provider = self._provider
        claims, key = read(proof)
        fits = (claims["htm"], claims["htu"]) == ("POST", f"{provider.issuer}/token")
        if not fits or claims["jti"] in provider.proofs or provider.keys.get(refresh, key) != key:
            return "", JSONResponse({"error": "invalid_dpop_proof"}, 400)
        provider.proofs.add(claims["jti"])
        nonce = provider.behaviour["nonce"]
        if nonce and claims.get("nonce") != nonce:
            refused = JSONResponse({"error": "use_dpop_nonce"}, 400, {"DPoP-Nonce": nonce})
            return "", refused
        return key, None

    async def _given(
        self, scope: Any, form: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, Any]]:
        """Process the token request of a machine. The SDK processes all other token requests."""
        if form.get("grant_type") in ("client_credentials", JWT_BEARER):
            scopes = form.get("scope", "").split()
            subject = self._provider.vouched(form.get("assertion", ""))
            if subject is None:
                return 400, {"error": "invalid_grant"}
            result = self._provider.give(MACHINE, scopes, form.get("resource"), subject)
            result.refresh_token = None
            return 200, json.loads(result.model_dump_json(exclude_none=True))
        messages: list[MutableMapping[str, Any]] = []

        async def again() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def hear(message: MutableMapping[str, Any]) -> None:
            messages.append(message)

        await self._sdk(scope, again, hear)
        answer = b"".join(each.get("body", b"") for each in messages[1:])
        return messages[0]["status"], json.loads(answer)

    async def _described(self, _request: Request) -> Response:
        return JSONResponse(self._document | self._provider.behaviour["document"])

    async def _say(self, request: Request) -> Response:
        self._provider.behaviour |= await request.json()
        seconds = self._provider.behaviour["secret_seconds"]
        self._registration.client_secret_expiry_seconds = seconds
        return JSONResponse({})

    async def _forget(self, _request: Request) -> Response:
        self._provider.clients.clear()
        return JSONResponse({})

    async def _introspect(self, request: Request) -> Response:
        token = str((await request.form())["token"])
        found = self._provider.tokens.get(token)
        if found is None or (found.expires_at or 0) <= time.time():
            return JSONResponse({})
        bound = {
            "key": self._provider.keys.get(token, ""),
            "nonce": self._provider.behaviour["nonce"],
        }
        bound["certificate"] = self._provider.certificates.get(token, "")
        return JSONResponse(found.model_dump(mode="json") | bound)

    async def _expire(self, _request: Request) -> Response:
        self._provider.tokens.clear()
        return JSONResponse({})

    async def _give(self, request: Request) -> Response:
        requested = await request.json()
        client = OAuthClientInformationFull(
            client_id=requested["client"],
            client_secret=requested["secret"],
            redirect_uris=[AnyHttpUrl("https://gateway.test/")],
            token_endpoint_auth_method="client_secret_basic",
        )
        await self._provider.register_client(client)
        given = (
            self._provider.give(requested["client"], ["read"], None, "x")
            for _ in range(requested["count"])
        )
        return JSONResponse([each.refresh_token for each in given])

    async def _seen(self, _request: Request) -> Response:
        return JSONResponse(self._provider.seen)


if __name__ == "__main__":
    port = int(sys.argv[1])
    if sys.argv[2:]:
        app = Application(f"https://localhost:{port}")
        asyncio.run(serve(app, sys.argv[3:], (port, CERT_NONE), (int(sys.argv[2]), CERT_REQUIRED)))
    else:
        uvicorn.run(Application(f"http://127.0.0.1:{port}"), port=port, log_level="error")
