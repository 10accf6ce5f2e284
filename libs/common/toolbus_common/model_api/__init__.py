"""Forms of the APIs for models, and embeddings, which several services use."""
