"""The front door under requests that nobody thought of, by its own description.

schemathesis makes them from `/openapi.json`: examples, every boundary of every schema, random
ones, and sequences in which what one answered is asked of the next. The desk is a real one, with
workers, and holds something of each kind, whose ids are mixed into the paths.
"""
