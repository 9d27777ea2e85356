"""`flagpost rehearse`: which deliveries would end differently with this release and these settings than in the
ledger.

In: stretches of the events topic and the ledger. Out: the deliveries that would end differently, by kind and reason.
`recorded`, `tracks`, `metadata` and `partition` decide; `reading` reads, `report` shows, `command` connects them.
"""
