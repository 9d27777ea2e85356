"""The state of everything: deliveries, offsets, claims, and what the ledger already says.

In: deliveries as they begin and end, acknowledgements, the ledger's records at a restart. Out: settlements to write,
positions to commit. Called by the engine, `tracks`, `metadata` and `pendo`; it imports none of them.
"""
