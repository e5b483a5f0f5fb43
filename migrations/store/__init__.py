"""Versions of the bot's own tables (bot/tables.py)."""
