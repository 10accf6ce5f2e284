"""Evidence for auditors: facts taken out with what seals them, and checked without Toolbus."""
