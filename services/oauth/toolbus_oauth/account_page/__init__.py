"""The page on which people review and revoke the access they allowed."""
