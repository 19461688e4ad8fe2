"""Benchmarks: ours beside the floor and the rivals, in one run. `make bench`, or `python -m bench NAME ...`."""
