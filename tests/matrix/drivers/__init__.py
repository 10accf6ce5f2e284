"""One small program for each client, each run where only that client is installed."""
