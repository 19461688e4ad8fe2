"""Filters: CEL text from clients, checked, compiled once, evaluated once per event."""
