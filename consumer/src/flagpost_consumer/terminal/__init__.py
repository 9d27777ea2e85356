"""What commands print, and how they show progress, times and tables.

In: texts and documents, much of them written by others. Out: output without anything in these texts that a terminal
would obey.
"""
