"""A window that shows the newest frames of one or several sources."""

from __future__ import annotations

import math
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookonce.errors import UserError

NO_DISPLAY = "there is no display here; use --show page, which shows the same in a browser"
PART = 0.9
"""Of the screen, at most, that the window takes."""


class LiveWindow:
    """A window of tkinter, from Python's standard library. All but `put` is called from the thread that opened it.

    Raises:
        UserError: there is no display, or Python came without tkinter.
    """

    def __init__(self) -> None:
        try:
            import tkinter

            from PIL import ImageTk
        except ImportError:
            raise UserError("show: Python has no tkinter here, which draws the window (on Debian: apt install "
                            "python3-tk); use --show page, which shows the same in a browser") from None  # fmt: skip
        self._tkinter, self._photo = tkinter, ImageTk.PhotoImage
        try:
            self._root = tkinter.Tk(className="lookonce")
        except tkinter.TclError:
            raise UserError(f"show: {NO_DISPLAY}") from None
        self._root.title("lookonce")
        self._root.configure(background="black")
        self._root.protocol("WM_DELETE_WINDOW", self._end)
        for key in ("q", "Q", "<Escape>"):
            self._root.bind(key, self._end)
        self._is_ended = False
        self._labels: dict[str, Any] = {}
        self._newest: dict[str, NDArray[np.uint8]] = {}
        self._lock = Lock()

    def begin(self, names: list[str]) -> None:
        """Show these sources side by side, in place of those before."""
        for label in self._labels.values():
            label.destroy()
        columns = math.ceil(math.sqrt(len(names)))
        rows = math.ceil(len(names) / columns)
        self._most = (round(PART * self._root.winfo_screenwidth() / columns),
                      round(PART * self._root.winfo_screenheight() / rows))  # fmt: skip
        self._labels = {name: self._tkinter.Label(self._root, background="black", borderwidth=0) for name in names}
        for n, label in enumerate(self._labels.values()):
            label.grid(row=n // columns, column=n % columns)
        self._root.title(f"{', '.join(names)} - lookonce")

    def put(self, name: str, pixels: NDArray[np.uint8]) -> None:
        """Show a frame [h, w, 3] RGB at the next update. Called from any thread."""
        with self._lock:
            self._newest[name] = pixels

    def update(self) -> None:
        """Show the newest frames and read the keys. Raises KeyboardInterrupt if the user closed the window."""
        with self._lock:
            newest, self._newest = self._newest, {}
        for name, pixels in newest.items():
            if (label := self._labels.get(name)) is not None:
                image = Image.fromarray(pixels)
                image.thumbnail(self._most)
                label.image = self._photo(image, master=self._root)  # tkinter keeps no reference
                label.configure(image=label.image)
        if not self._is_ended:
            self._root.update()
        if self._is_ended:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Close the window."""
        self._labels = {}  # images go before the interpreter of Tk
        self._root.destroy()

    def _end(self, *_: object) -> None:
        self._is_ended = True
