"""The codemode room."""
