"""Selection of parts of a result with JMESPath, evaluated in a separate process."""
