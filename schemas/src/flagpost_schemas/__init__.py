"""Flagpost's schemas."""
