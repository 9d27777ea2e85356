"""`flagpost dead-letters`: lists what could not be delivered, shows one dead letter, and replays originals.

In: the dead-letter topic, the ledger, settings. Out: tables and JSON; replayed records on the events topic.
"""
