"""Gateways on other machines: contexts, and requests to their administration API."""
