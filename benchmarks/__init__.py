"""Side by side with peers: `python -m benchmarks ops | models | loader`."""
