"""`toolbus up`: engines and services as supervised processes of one launcher."""
