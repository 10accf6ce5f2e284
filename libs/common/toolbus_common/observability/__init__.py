"""Log, measure and trace."""
