"""The ingress service: the HTTP edge."""
