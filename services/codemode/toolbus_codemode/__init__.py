"""The codemode service."""
