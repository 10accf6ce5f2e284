"""Encryption of personal data in events with a key per person; deleting a key erases the data."""
