"""Pendo: requests for attempts, its metadata fields, and what to tell people of its state.

In: attempts of the engine. Out: one answer for each, without secrets.
"""
