"""Texts of documents, in the forms in which guards search them."""
