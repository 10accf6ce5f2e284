"""Lists of the models of providers: read from the provider, checked, and published."""
