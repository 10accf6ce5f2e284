"""Encrypt personal data in events with one key per person; shredding a key erases the data."""
