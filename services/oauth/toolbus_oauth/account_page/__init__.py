"""Show a person what they allowed, and let them revoke it."""
