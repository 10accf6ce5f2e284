"""Speak HTTP/1.1 to upstreams: connections, SSE, proxies, redirects."""
