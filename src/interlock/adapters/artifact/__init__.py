"""Reads the files of a model version without loading any of them. Pickles and code are read by a process of their own."""
