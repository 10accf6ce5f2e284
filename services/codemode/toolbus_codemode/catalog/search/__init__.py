"""Search of tools by words and embeddings."""
