"""One module a family of models, loaded by name."""
