"""Sessions at servers: their owners, limits, and the executor that holds each."""
