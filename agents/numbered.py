"""Documents whose every page says how many there are: quotes and reports."""

from collections.abc import Callable
from typing import Any

from reportlab.pdfgen.canvas import Canvas


def numbered(draw: Callable[[Canvas, int, int], None]) -> type[Canvas]:
    """A canvas that has `draw` add to each page, given its number and how many there are: that is
    known at the end only."""

    class Numbered(Canvas):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._kept: list[dict[str, Any]] = []

        def showPage(self) -> None:
            self._kept.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for page, state in enumerate(self._kept, 1):
                self.__dict__.update(state)
                draw(self, page, len(self._kept))
                super().showPage()
            super().save()

    return Numbered
