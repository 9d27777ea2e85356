"""`flagpost plan`: runs the real engine under virtual time, to predict what a load needs.

In: a load, settings, what an event costs on a machine. Out: a forecast, and its charts. Only `command` is called from
outside; benchmarks/plan.py also calls the parts that it compares with a real run.
"""
