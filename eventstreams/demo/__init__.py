"""Imports nothing; see the modules."""
