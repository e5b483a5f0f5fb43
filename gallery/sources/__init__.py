"""Where people and portraits come from."""
