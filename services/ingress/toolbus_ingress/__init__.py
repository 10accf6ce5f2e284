"""The ingress room."""
