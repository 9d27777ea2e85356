"""The schema registry: writers' schemas by id.

In: schema ids. Out: schemas, or what the registry said instead.
"""
