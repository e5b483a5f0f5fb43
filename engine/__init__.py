"""Pixels to vectors: decoding, detecting, aligning and embedding faces. No people, no chats."""
