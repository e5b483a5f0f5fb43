"""What `lookalike evaluate` measures, and the page it writes; the door is gallery/evaluate.py."""
