"""HTTP/1.1 client for upstreams: connections, server-sent events, proxies, redirects."""
