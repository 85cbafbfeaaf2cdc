"""Near-duplicates of a data set: files that show the same image."""
