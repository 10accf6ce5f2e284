"""HTTP/1.1 client for upstreams: connections, SSE, proxies, redirects."""
