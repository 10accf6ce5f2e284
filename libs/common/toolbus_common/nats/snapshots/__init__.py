"""Snapshots of streams with their consumers, and pauses of consumers, by the API of JetStream."""
