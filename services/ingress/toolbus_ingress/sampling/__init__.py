"""Answers of a declared model to the sampling requests that servers send during calls."""
