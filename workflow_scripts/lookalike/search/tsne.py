"""t-SNE of a few hundred points with NumPy alone: importing scikit-learn takes longer than that.

L. van der Maaten, G. Hinton: Visualizing Data using t-SNE. Journal of Machine Learning Research 9, 2008; with the
learning rate, exaggeration, momentum and gains that scikit-learn uses.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EXAGGERATION = 12.0  # of similarities in the first EXPLORING iterations, in which clusters form
EXPLORING = 250


def embed(points: Floats, perplexity: float, iterations: int) -> Floats:
    """Places (n, 2) of points (n, d) whose first two coordinates are their principal components.

    Exact, so time and memory grow with the square of n. Points must not all be equal.
    """
    count = len(points)
    near = similarities(points, perplexity)
    places = points[:, :2] / points[:, 0].std() * 1e-4
    rate = max(count / EXAGGERATION / 4, 50.0)
    for exaggeration, momentum, rounds in ((EXAGGERATION, 0.5, EXPLORING), (1.0, 0.8, iterations - EXPLORING)):
        step, gains = np.zeros_like(places), np.ones_like(places)
        for _ in range(rounds):
            weights = 1 / (1 + _squared_distances(places))  # of Student's t distribution
            np.fill_diagonal(weights, 0)
            pull = (exaggeration * near - weights / weights.sum()) * weights
            gradient = 4 * (pull.sum(axis=1, keepdims=True) * places - pull @ places)
            gains = np.maximum(np.where(step * gradient < 0, gains + 0.2, gains * 0.8), 0.01)
            step = momentum * step - rate * gains * gradient
            places = places + step
    return np.asarray(places)


def similarities(points: Floats, perplexity: float) -> Floats:
    """How near each two points are, symmetric, with sum 1: each has about ``perplexity`` neighbors."""
    distances = _squared_distances(points)
    np.fill_diagonal(distances, np.inf)
    distances -= distances.min(axis=1, keepdims=True)
    low, high = np.full((2, len(points), 1), [[[0.0]], [[np.inf]]])
    sharpness = np.ones_like(low)  # 1 / (2 variance) of each point's normal distribution
    for _ in range(100):
        near = np.exp(-distances * sharpness)
        near /= near.sum(axis=1, keepdims=True)
        entropy = -(near * np.log(np.maximum(near, 1e-300))).sum(axis=1, keepdims=True)
        too_wide = entropy > np.log(perplexity)
        low, high = np.where(too_wide, sharpness, low), np.where(too_wide, high, sharpness)
        sharpness = np.where(np.isinf(high), 2 * sharpness, (low + np.where(np.isinf(high), low, high)) / 2)
    return np.asarray((near + near.T) / (2 * len(points)))


def _squared_distances(points: Floats) -> Floats:
    squares = np.einsum("ij,ij->i", points, points)
    return np.asarray(np.maximum(squares[:, None] + squares[None, :] - 2 * points @ points.T, 0))
