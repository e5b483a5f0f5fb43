"""What is drawn: cards, split faces, films, and the letters on them."""
