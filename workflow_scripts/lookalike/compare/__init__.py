"""The stages `compare` and `find_duplicates`: models against each other, and duplicate files."""
