"""Finds the points that D4M takes: scikit-learn's MiniBatchKMeans, fed in D4M's order.

Source: suduo94/D4M, distillation/gen_prototype.py: one pass over shuffled samples, a `partial_fit` for each
`expand` * k of them. D4M drops the remainder of every class but the last sample's, a slip of its indentation; here it
is always fed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def minibatch_points(X: NDArray[Any], k: int, rng: np.random.Generator, *, expand: int = 10) -> NDArray[Any]:
    """Points (k, d) in X's type for the samples X (n, d), n >= k, shuffled by `rng`.

    scikit-learn itself starts from seed 0, as in D4M; `expand` is D4M's km_expand, whose program has 10 as default.

    >>> sorted(minibatch_points(np.array([[1.0], [1.0], [5.0]]), 2, np.random.default_rng(0)).ravel().tolist())
    [1.0, 5.0]
    """
    from sklearn.cluster import MiniBatchKMeans  # heavy, and `import ddoq` needs NumPy alone

    order, batch = rng.permutation(len(X)), expand * k
    model = MiniBatchKMeans(n_clusters=k, random_state=0, batch_size=batch, n_init="auto")
    for start in range(0, len(X), batch):
        model.partial_fit(X[order[start : start + batch]])
    points: NDArray[Any] = np.ascontiguousarray(model.cluster_centers_, dtype=X.dtype)
    return points
