"""Evidence for auditors: events taken out with what seals them, and checked without Toolbus."""
