"""The core: what decides. No I/O library is imported here; `engine` is on top, five rooms are below it.

In: records, answers, acknowledgements, the time. Out: `actions`. From the ground up: values (`records`, `outcomes`,
`policy`, `clock`), `planning`, `books`, `pendo`, then `tracks` and `metadata`, which know nothing of one another.
"""
