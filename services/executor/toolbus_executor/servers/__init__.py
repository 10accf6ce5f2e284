"""Lifecycle of a configured server: supervisor, lease, list refresh and notifications."""
