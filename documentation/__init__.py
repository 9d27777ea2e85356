"""What of the documentation is made and not written: the site, the drawings of the rooms, the contract's tables.

In: docs/, the READMEs and the code. Out: dist/site (`make docs`), docs/pictures/rooms-*.svg (`make architecture`) and
the marked parts of docs/contract.md (`make contract`). Run as programs; no part of Flagpost imports it.
"""
