"""The whole consumer on one seeded event loop with a simulated clock.

In: a seed. Out: a history, and complaints about it. `service/` and the adapters run unchanged. Simulated are the
clock, threads, Kafka's clients with their brokers, and the network with Pendo at its other end (`surroundings`).

`make simulate` runs many seeds, `make simulate SEED=83` prints the history of one. A line has the simulated second,
the process (none: the world), and what happened: what the product logs, what Pendo and the ledger receive, TROUBLE
when something begins to go wrong, WRONG and COMPLAINT when the oracle finds something. A seed has the same history,
byte for byte, in every process: so you can read it, change the product, and read it again.

`defects` plants known defects: a simulation that does not find them proves nothing.
"""
