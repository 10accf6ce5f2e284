"""`toolbus up`: engines and rooms as supervised processes of one launcher."""
