"""The whole consumer on one seeded event loop with a simulated clock.

In: a seed. Out: a history, and what in it must not be. `service/` and the adapters run as they are; simulated are the
clock, threads, Kafka's clients with their brokers, and the network with Pendo at its other end (`surroundings`).

`make simulate` runs many seeds, `make simulate SEED=83` prints the history of one. A line has the simulated second,
the process (none: the world), and what happened: what the product logs, what Pendo and the ledger get, TROUBLE where
something begins to go wrong, WRONG and COMPLAINT where the oracle finds something. A seed has one history, byte for
byte, in every process, so it can be read, the product changed, and the history read again.

`defects` plants known defects: a simulation that does not find them proves nothing.
"""
