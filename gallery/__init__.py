"""People and their portraits: catalogue, vectors, search and calibrated scores. No chats."""
