"""The release: `make release` builds the artefacts of a commit, and installs them away from the checkout.

In: a commit, the index of packages, and a Docker engine where there is one. Out: dist/release (docs/releasing.md).
Run as a program, `python -m release`; no part of Flagpost imports it.
"""
