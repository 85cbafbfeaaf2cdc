"""The compare and find_duplicates stages: pairwise comparison of models, and duplicate files."""
