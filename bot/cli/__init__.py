"""One module per command of `lookalike`; each is imported only when it is called."""
