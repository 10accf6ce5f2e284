"""Shared test support: engines, servers, clients and gateways that run as real processes."""
