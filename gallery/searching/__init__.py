"""How a few people are found among many; the door is gallery/index.py."""
