"""Versions of the gallery's tables (gallery/tables.py)."""
