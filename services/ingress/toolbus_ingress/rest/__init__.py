"""What the REST APIs share: one FastAPI application, problem responses, the OpenAPI document."""
