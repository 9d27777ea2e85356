"""Flagpost's consumer."""
