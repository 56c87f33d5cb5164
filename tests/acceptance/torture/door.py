"""The front door under test: the real one, on the clock that jumps."""

from torture import clockwork

clockwork.install()

from api.wsgi import app  # noqa: E402 (its engine is made by the import)

__all__ = ["app"]
