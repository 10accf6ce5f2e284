"""Requests to S3-compatible stores, signed as AWS Signature Version 4 says. Pure."""

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
    """Who signs, and where."""

    access: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)
    region: str = "us-east-1"


def url_of(bucket_url: str, path: str) -> str:
    """An object's URL; its path is written as it is signed."""
    return f"{bucket_url}/{quote(path, safe='/-_.~')}"


def signed(
    keys: Keys, method: str, url: str, body: bytes, headers: Mapping[str, str], now: datetime
) -> dict[str, str]:
    """The headers with which the request is sent. `now` is UTC."""
    parts = urlsplit(url)
    at = now.strftime("%Y%m%dT%H%M%SZ")
    told = {name.lower(): value.strip() for name, value in headers.items()}
    told |= {
        "host": _authority(url),
        "x-amz-content-sha256": sha256(body).hexdigest(),
        "x-amz-date": at,
    }
    if keys.token:
        told["x-amz-security-token"] = keys.token
    names = ";".join(sorted(told))
    canonical = "\n".join(
        (
            method,
            parts.path or "/",
            parts.query,
            *(f"{name}:{told[name]}" for name in sorted(told)),
            "",
            names,
            told["x-amz-content-sha256"],
        )
    )
    scope = f"{at[:8]}/{keys.region}/s3/aws4_request"
    text = "\n".join((_ALGORITHM, at, scope, sha256(canonical.encode()).hexdigest()))
    signature = hmac.new(_key(keys, at[:8]), text.encode(), sha256).hexdigest()
    told["authorization"] = (
        f"{_ALGORITHM} Credential={keys.access}/{scope},SignedHeaders={names},Signature={signature}"
    )
    return told


def _key(keys: Keys, day: str) -> bytes:
    key = f"AWS4{keys.secret}".encode()
    for part in (day, keys.region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), sha256).digest()
    return key


def _authority(url: str) -> str:
    """The host as the request names it: without the port its scheme has anyway."""
    parts = urlsplit(url)
    default = parts.port is None or parts.port == _PORTS[parts.scheme]
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if default else f"{host}:{parts.port}"
