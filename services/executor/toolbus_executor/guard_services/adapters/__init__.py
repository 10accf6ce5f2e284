"""Adapters of the services that check content: one module per API."""
