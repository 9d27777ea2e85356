"""The ledger topic: settlements are written to it, and read from it at a restart.

In: settlements; records of the ledger. Out: acknowledgements; the restored state of a partition.
"""
