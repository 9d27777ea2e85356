"""`flagpost web`: the page for people who do not use terminals. It only reads.

In: the topics, the consumers' /status, requests of browsers. Out: pages, CSV, a live stream. `command` runs it and
`program` knows all parts; nobody else calls in.

- `following` reads the topics in its own thread and hands over `view`: an immutable state to show;
- `guard` decides who is answered, `server` answers; `reports` makes the tables, `pages` and `charts` HTML, `live` the
stream;
- `consumers` asks the consumers about Pendo's state.
"""
