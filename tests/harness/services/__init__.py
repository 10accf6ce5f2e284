"""Single Toolbus services inside the test process."""
