"""`flagpost topics create`, and the rules for Flagpost's topics.

In: settings. Out: topics, and what does not fit in existing ones.
"""
