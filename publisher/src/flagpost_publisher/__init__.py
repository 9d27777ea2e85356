"""Flagpost's publisher."""
