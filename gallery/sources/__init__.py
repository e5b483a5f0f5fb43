"""Where portraits come from, in any order; a person may come again and again, known by the key."""
