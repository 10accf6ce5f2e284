"""Encryption of personal data in events, with one key per person.

Deleting a key erases the data.
"""
