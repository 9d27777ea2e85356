"""`flagpost explain`: everything that became of one visitor's events, on one page.

`subject` says who it is about; `finding` reads Kafka, `pendo` Pendo; `stories` and `waiting` decide without I/O;
`page` and `document` show the result; `command` connects them.
"""
