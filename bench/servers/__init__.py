"""Rivals in Python: the portable path, and what a gateway is without an engine."""
