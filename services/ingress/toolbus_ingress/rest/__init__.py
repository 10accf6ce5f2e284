"""Common parts of the REST APIs: FastAPI application, problem responses, OpenAPI document."""
