"""The pages, and what draws their figures."""
