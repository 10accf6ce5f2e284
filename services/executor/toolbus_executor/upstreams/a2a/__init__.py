"""A2A agents as servers: the skills of an agent are tools (protocol versions 1.0 and 0.3)."""

from toolbus_executor.upstreams.a2a.upstream import A2aUpstream

__all__ = ["A2aUpstream"]
