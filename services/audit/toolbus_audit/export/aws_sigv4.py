"""AWS Signature Version 4 for requests to S3-compatible stores. Pure."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from urllib.parse import quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials, and the region they sign for."""

    access: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)
    region: str = "us-east-1"


def url_of(bucket_url: str, path: str) -> str:
    """Return an object's URL, with the path encoded as in the signature."""
    return f"{bucket_url}/{quote(path, safe='/-_.~')}"


def sign_request(
    keys: Keys, method: str, url: str, body: bytes, headers: Mapping[str, str], now: datetime
) -> dict[str, str]:
    """Return the headers of the signed request. `now` is in UTC."""
    parts = urlsplit(url)
    at = now.strftime("%Y%m%dT%H%M%SZ")
    signed_headers = {name.lower(): value.strip() for name, value in headers.items()}
    signed_headers |= {
        "host": _host_header(url),
        "x-amz-content-sha256": sha256(body).hexdigest(),
        "x-amz-date": at,
    }
    if keys.token:
        signed_headers["x-amz-security-token"] = keys.token
    names = ";".join(sorted(signed_headers))
    canonical = "\n".join(
        (
            method,
            parts.path or "/",
            parts.query,
            *(f"{name}:{signed_headers[name]}" for name in sorted(signed_headers)),
            "",
            names,
            signed_headers["x-amz-content-sha256"],
        )
    )
    scope = f"{at[:8]}/{keys.region}/s3/aws4_request"
    text = "\n".join((_ALGORITHM, at, scope, sha256(canonical.encode()).hexdigest()))
    signature = hmac.new(_key(keys, at[:8]), text.encode(), sha256).hexdigest()
    authorization = (
        f"{_ALGORITHM} Credential={keys.access}/{scope},SignedHeaders={names},Signature={signature}"
    )
    return signed_headers | {"authorization": authorization}


def _key(keys: Keys, day: str) -> bytes:
    key = f"AWS4{keys.secret}".encode()
    for part in (day, keys.region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), sha256).digest()
    return key


def _host_header(url: str) -> str:
    """Return the value of the Host header: without the default port of the scheme."""
    parts = urlsplit(url)
    default = parts.port is None or parts.port == _PORTS[parts.scheme]
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if default else f"{host}:{parts.port}"
