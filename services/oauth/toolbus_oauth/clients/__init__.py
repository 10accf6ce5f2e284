"""OAuth clients: registration, metadata documents, authentication."""
