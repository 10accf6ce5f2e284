"""The pages of the console. Each reads and changes data only through the REST APIs."""
