"""Tools as functions over plain REST, for programs that execute the tool calls of a model."""
