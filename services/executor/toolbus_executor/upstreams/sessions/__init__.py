"""Sessions with servers: their owners, their limits, and the executor that holds each session."""
