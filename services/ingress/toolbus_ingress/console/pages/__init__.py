"""The pages of the console. Each reads and changes through the REST APIs only."""
