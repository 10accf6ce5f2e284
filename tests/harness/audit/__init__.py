"""Test support for audit: events, sealed logs, witnesses and exports."""
