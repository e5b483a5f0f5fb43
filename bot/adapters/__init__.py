"""One module per platform; each translates updates to requests and replies to messages."""
