"""Leaving a NATS server that announces its end, without losing a message."""
