"""`flagpost check`: tests settings, Kafka, the schema registry and Pendo before anything is sent.

In: settings. Out: findings, each with what to do.
"""
