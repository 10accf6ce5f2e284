"""Whole gateways, the load on them and their failures."""
