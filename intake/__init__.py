"""Event intake over HTTP. Imports nothing; see the modules."""
