"""A real model that calls tools, on a real llama.cpp server."""
