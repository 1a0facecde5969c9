"""The stories: one file each, read as a table of contents. Nothing imports from here."""
