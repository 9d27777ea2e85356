"""Whether visitors are distributed over the variations of an experiment as they should be.

In: decisions, and the splits that publishers report. Out: visitors by variation, and the evidence against a split.
Called by the metrics and by `reconcile`; it is not on a record's way to Pendo.
"""
