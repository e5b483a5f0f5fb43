"""Pictures of answers: cards with two faces or more, one face of two, and films between them."""
