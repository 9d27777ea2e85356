"""`flagpost dead-letters`: list what could not be delivered, look at one, and put originals back.

In: the dead-letter topic, the ledger, settings. Out: tables and JSON; replayed records on the events topic.
"""
