"""Providers of models: a mock of every API, and a real llama.cpp server."""
