"""Runs a kit of black-box cases for the original services against this checkout."""
