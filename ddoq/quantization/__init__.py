"""Optimal quantisation of arrays: the quantiser, CLVQ, W2, the estimator and their NumPy reference."""
