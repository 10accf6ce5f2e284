"""HTTP APIs as upstreams: requests are built from arguments, results from responses."""
