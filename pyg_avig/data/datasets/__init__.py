"""Data sets, a domain a file."""
