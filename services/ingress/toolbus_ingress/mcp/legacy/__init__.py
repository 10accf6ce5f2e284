"""Support protocol revisions up to 2025-11-25: batches, HTTP+SSE, server-to-client requests."""
