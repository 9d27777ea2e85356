"""The commands of `flagpost`: a module or a folder for each, imported when it is run.

In: arguments, settings, the contents of the topics and Pendo's answers. Out: text, JSON and exit codes. `cli` finds
the command; `sources` reads what several of them need. Called from the command line, and by the page for what both
show.
"""
