"""Read secrets from external stores: files, Vault, AWS, GCP, Azure."""
