"""The parts of `flagpost rehearse`: what this release and these settings would make of what the ledger tells of.

In: stretches of the events topic and the ledger. Out: the deliveries that would end otherwise, by kind and reason.
For `operator.rehearse` alone: `recorded`, `tracks`, `metadata`, `partition` decide; `reading` reads, `report` shows.
"""
