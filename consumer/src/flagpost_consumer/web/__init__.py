"""`flagpost web`: the page for people who do not use terminals. It only reads.

In: the topics, the consumers' /status, requests of browsers. Out: pages, CSV, a live stream. `command` starts it and
`program` connects all parts; other folders call only `command`.

- `following` reads the topics in its own thread; its `state` is immutable and has the `View` to show;
- `guard` decides who is answered, `server` answers; `reports` makes the tables, `pages` and `charts` HTML, `live` the
stream;
- `consumers` asks the consumers about Pendo's state.
"""
