"""The whole path with nothing to install: an embedded broker, a stand-in for Pendo, a sample application.

Tests, benchmarks and compose use the same three parts. The extra `[demo]` installs what the application needs.
"""
