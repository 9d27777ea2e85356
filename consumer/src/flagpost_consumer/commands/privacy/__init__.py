"""`flagpost suppress` and `flagpost erase`: for requests of persons about their data.

In: a visitor's id, the topics. Out: a record of the suppressions topic; where the visitor's data is, and until when.
"""
