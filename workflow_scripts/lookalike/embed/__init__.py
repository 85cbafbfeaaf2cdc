"""The stages `fetch_weights` and `embed`: images to vectors. The only stages that import torch."""
