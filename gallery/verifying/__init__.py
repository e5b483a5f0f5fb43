"""What `lookalike gallery verify` looks for and mends; the door is gallery/verify.py."""
