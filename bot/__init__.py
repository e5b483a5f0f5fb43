"""What people talk to: conversation, recognizer, store, adapters and the command line."""

__version__ = "0.1.0"
