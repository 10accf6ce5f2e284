"""API keys of one provider: their choice by weight, and the pauses after errors (no I/O)."""

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass

COOLING_STATUSES = frozenset({401, 402, 403, 429})
TOO_MANY_REQUESTS, UNAUTHORIZED = 429, 401
TOO_MANY_SECONDS, OTHER_SECONDS = 10.0, 300.0
LONGEST_SECONDS = 3600.0
MAX_PAUSES = 1000
SIGNED = "access_key"  # the credential that names a pair of keys of AWS
_HEADERS = {"anthropic": "x-api-key: ", "gemini": "x-goog-api-key: "}


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One API key. `line` is the header line that contains it; empty if the provider has no key."""

    name: str
    line: bytes
    weight: int = 1

    def __repr__(self) -> str:
        """Return the name without the secret."""
        return f"ApiKey({self.name!r})"


class ApiKeys:
    """The API keys of a provider. A key pauses after an error that concerns the key.

    HTTP 401 pauses the key for all models. The other statuses of `COOLING_STATUSES` can concern
    one model or one large request. They pause the key only for that model, so that a caller cannot
    block the other models. Times are monotonic seconds.
    """

    def __init__(self, keys: Collection[ApiKey]) -> None:
        self._keys = tuple(keys) or (ApiKey("", b""),)
        self._until: dict[tuple[str, str], float] = {}  # by key and model; all models: empty

    def choose(self, model: str, now: float, tried: Collection[str] = ()) -> ApiKey | None:
        """Return a key that is neither paused nor in `tried`, at random by weight.

        If all keys are paused, the first attempt uses the key whose pause ends first, because a
        caller can cause a pause. Later attempts return None.
        """
        if not self._until and not tried and len(self._keys) == 1:
            return self._keys[0]
        left = [
            key
            for key in self._keys
            if key.name not in tried and self._paused_until(key, model) <= now
        ]
        if not left:
            first = () if tried else self._keys
            return min(first, key=lambda key: self._paused_until(key, model), default=None)
        weights = [key.weight for key in left]
        return random.choices(left, weights)[0]  # noqa: S311 - shares the load

    def pause(self, key: ApiKey, model: str, status: int, retry_after: float, now: float) -> None:
        """Pause a key after an HTTP error. `retry_after` is the provider's pause; 0 for none."""
        if not key.name:
            return
        seconds = retry_after or (
            TOO_MANY_SECONDS if status == TOO_MANY_REQUESTS else OTHER_SECONDS
        )
        if len(self._until) >= MAX_PAUSES:
            self._until = {each: until for each, until in self._until.items() if until > now}
        concerned = "" if status == UNAUTHORIZED else model
        if concerned and len(self._until) >= MAX_PAUSES:
            return
        self._until[key.name, concerned] = now + min(seconds, LONGEST_SECONDS)

    def paused(self, now: float) -> list[str]:
        """Return the names of the keys that are paused for at least one model."""
        return sorted({name for (name, _), until in self._until.items() if until > now})

    def _paused_until(self, key: ApiKey, model: str) -> float:
        until = self._until
        return max(until.get((key.name, ""), 0.0), until.get((key.name, model), 0.0))


def key_lines(kind: str, values: Mapping[str, str], weights: Mapping[str, int]) -> list[ApiKey]:
    """Return the keys of a provider. `values` are the API keys by name.

    Raises:
        ValueError: a key cannot be sent in a header.

    """
    if kind == "vertex":  # each request has a token of the service account
        return [ApiKey(name, b"", weights.get(name, 1)) for name in values]
    if kind == "bedrock" and SIGNED in values:  # each request is signed with the pair of keys
        return [ApiKey(SIGNED, b"")]
    header = _HEADERS.get(kind, "authorization: Bearer ")
    keys = []
    for name, value in values.items():
        if not value or not value.isascii() or not value.isprintable():
            raise ValueError(
                f"the API key '{name}' is empty, or contains characters that no header can contain"
            )
        keys.append(ApiKey(name, f"{header}{value}\r\n".encode(), weights.get(name, 1)))
    return keys
