"""What commands read: topics, Kafka's administration, consumers' /status, Pendo's API.

In: settings and windows of time. Out: records, states and answers. Called by the commands and the page.
"""
