"""A gallery's people, pictures and vectors on PostgreSQL with pgvector."""
