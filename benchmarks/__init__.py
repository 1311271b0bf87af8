"""Side by side with peers: `python -m benchmarks ops | layer | growth | models | loader | ...`."""
