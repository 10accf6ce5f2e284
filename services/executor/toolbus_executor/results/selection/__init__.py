"""Result selection with JMESPath, evaluated in a separate process."""
