"""Drawings of the code, by the code."""
