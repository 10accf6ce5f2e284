"""Buckets of S3, Google Cloud Storage and Azure Blob Storage, reached through a checking proxy."""
