"""Curves and tables from the store; imports nothing else of this package."""
