"""`flagpost suppress` and `flagpost erase`: what a person may ask for.

In: a visitor's id, the topics. Out: a record of the suppressions topic; where the visitor's data is, and until when.
"""
