"""What Pendo's answers mean.

In: answers, the requests that were started, the limits. Out: verdicts, endings, when the next request may start.
Called by `tracks`, `metadata` and the engine; it imports neither.
"""
