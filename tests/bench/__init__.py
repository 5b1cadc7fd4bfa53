"""Measurements, each a ratio within one run; nothing here passes or fails."""
