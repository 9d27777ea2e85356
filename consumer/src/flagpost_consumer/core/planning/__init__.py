"""Turns a record into deliveries, or endings.

In: decoded events, the policy, Pendo's fields, suppressions. Out: planned deliveries. It keeps no state of a
partition and knows nothing of requests. Called by the engine, and by commands that show what would become of an
event.
"""
