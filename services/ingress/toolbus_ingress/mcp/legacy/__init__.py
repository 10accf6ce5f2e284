"""Support of protocol revisions up to 2025-11-25: batches, requests of servers to clients."""
