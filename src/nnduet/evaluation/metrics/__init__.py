"""The arithmetic of the metrics."""
