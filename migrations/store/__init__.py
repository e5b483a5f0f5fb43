"""Versions of the bot's own tables (bot/store/tables.py)."""
