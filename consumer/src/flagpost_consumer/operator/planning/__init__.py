"""`flagpost plan`: the real engine under virtual time, to tell what a load needs before it comes.

In: a load, settings, what an event costs on a machine. Out: a forecast, and its charts. `command` alone is called
from outside, and by benchmarks/plan.py the parts that it compares with a real run.
"""
