"""Whether several backbones answer better together; the door is gallery/ensemble.py."""
