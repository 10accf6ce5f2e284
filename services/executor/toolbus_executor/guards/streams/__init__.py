"""Guards on the responses of models that are streamed."""
