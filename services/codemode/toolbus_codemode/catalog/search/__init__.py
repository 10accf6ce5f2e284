"""Search tools by words and by meaning."""
