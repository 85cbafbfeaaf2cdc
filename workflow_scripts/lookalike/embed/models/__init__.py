"""One module per family of models, imported by name."""
