"""Description of a service as an OpenTelemetry resource."""

import os
from functools import cache
from secrets import token_hex

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

_INSTANCE = token_hex(8)


@cache
def resource_of(service: str) -> Resource:
    """Return the resource of a service. Environment variables override its attributes."""
    own: dict[str, str | int] = {
        "service.name": f"toolbus-{service}",
        "service.namespace": "toolbus",
        "service.instance.id": _INSTANCE,
        "process.pid": os.getpid(),
    }
    configured = OTELResourceDetector().detect().attributes
    return Resource.create({name: own[name] for name in own if name not in configured})
