"""The stage `index`: a FAISS index of the references' vectors."""
