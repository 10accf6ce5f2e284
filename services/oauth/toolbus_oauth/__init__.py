"""The oauth service: authorization server, and OAuth client of upstream servers."""
