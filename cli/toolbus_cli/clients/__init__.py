"""Talk to services on behalf of commands."""
