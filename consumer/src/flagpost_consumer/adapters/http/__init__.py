"""HTTP requests on aiohttp's connections, for Pendo and for the schema registry.

In: a target and the bytes of a request. Out: exactly one answer, or the reason why there is none.
"""
