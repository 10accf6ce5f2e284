"""One small program for each client, run in an environment with only that client."""
