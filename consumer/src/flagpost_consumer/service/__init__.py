"""The consumer: builds the parts, runs them, and connects the engine with the world.

In: settings. Out: an exit code, after everything was settled or handed back. Called by `flagpost consume`.
"""
