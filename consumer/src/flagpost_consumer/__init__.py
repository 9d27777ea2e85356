"""Flagpost's consumer: delivers events to Pendo in order, paced, each one accounted for."""

__version__: str


def __getattr__(name: str) -> str:
    """The version: looked up only when needed, because it takes a while."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415 - as above

    return version("flagpost-consumer")
