"""What is drawn: cards, split faces, films, and the text on them."""
