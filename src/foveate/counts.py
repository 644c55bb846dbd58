"""Numbers of things as people read them: `1 image`, `2,000 images`."""


def plural(count: int, thing: str) -> str:
    """How many there are of a thing."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
