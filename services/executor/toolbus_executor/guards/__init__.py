"""Guards on the results of calls and on the responses of models."""
