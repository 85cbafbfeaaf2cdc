"""The stage `index`: vectors of the references to a FAISS index."""
