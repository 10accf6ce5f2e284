"""HTTP APIs as upstreams: requests made of arguments, results made of answers."""
