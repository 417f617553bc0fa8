"""Every hot path of both twins under pytest-benchmark: `python -m benchmarks micro` prints the c/py ratios."""
