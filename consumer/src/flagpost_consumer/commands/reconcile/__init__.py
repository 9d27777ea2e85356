"""The parts of `flagpost reconcile`: counting without I/O, and the reading and showing around it.

`settled` and `counting` decide, `sample_ratio` judges; `planning`, `extent`, `topics`, `replays` and `pendo_counts`
read; `reading` connects them, `report` shows the result.
"""
