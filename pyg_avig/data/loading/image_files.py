"""Reading image files, a few of which may be broken."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from io import FileIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageOps

from pyg_avig.errors import InputError

MODES = {1: "L", 3: "RGB"}
_log = logging.getLogger(__name__)


def read_image(file: str | Path | IO[bytes], channels: int) -> Image.Image:
    """An image file, whole, as a grey (1 channel) or RGB (3) PIL image.

    Grey, palette, CMYK, alpha and 16-bit files are converted; transparency is dropped.

    Args:
        file: A path, or an open file.
        channels: 1 or 3.

    Raises:
        InputError: If the file is missing, truncated or no image.
    """
    try:
        with Image.open(file) as image:
            image.load()
            with suppress(Exception):  # A sound picture may have broken EXIF data.
                image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I;16"):  # PIL clips these where it converts.
                image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
            if image.mode in ("I", "F"):
                raise ValueError(f"32 bits a pixel, mode {image.mode}; 8 or 16 are expected")
            if "transparency" in image.info:  # Else PIL warns.
                image = image.convert("RGBA")
            return image.convert(MODES[channels])
    except Exception as error:  # Decoders raise whatever a broken file makes them.
        name = getattr(file, "name", file)
        raise InputError(f"{name}: expected a readable image file ({error})") from None


class ImageFiles:
    """Labelled image files, broken ones replaced by their neighbours.

    Each broken file is named in the log once and not opened again. Counted are those that this
    process and its workers have met.

    Args:
        reader: A reader of timm: ``reader[i]`` is an open file (or path) and a class.
        channels: 1 or 3.
        bad_share: The share of all files that may be broken.

    Raises:
        InputError: On reading, if more are.
    """

    def __init__(self, reader: Any, channels: int = 3, bad_share: float = 1e-3) -> None:
        if not 0 <= bad_share < 1:
            raise InputError(f"bad_share must lie in [0, 1) (got {bad_share})")
        self.reader = reader
        self.channels = channels
        self.bad_share = bad_share
        # Shared with the workers of a loader.
        self.bad = torch.zeros(len(reader), dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        for step in range(len(self)):
            n = (index + step) % len(self)
            if self.bad[n]:
                continue
            try:
                return self._read(n)
            except (InputError, OSError) as error:
                self._count(n, error)
        raise InputError(f"expected readable image files (all {len(self)} are broken)")

    def look_through(self, most: int = 2000) -> None:
        """Read all files once, if there are no more than so many, and name those that are broken.

        Raises:
            InputError: If more are broken than may be.
        """
        if len(self) > most:
            return
        with ThreadPoolExecutor(os.cpu_count() if self._has_own_files() else 1) as pool:
            errors = pool.map(self._error_of, range(len(self)))
            broken = [(n, error) for n, error in enumerate(errors) if error is not None]
        if len(broken) > self.bad_share * len(self):
            named = "; ".join(str(error) for _, error in broken[:3]) + "; ..." * (len(broken) > 3)
            raise InputError(
                f"expected image files that can be read, but for a share of bad_share "
                f"{self.bad_share:g} (got {len(broken)} broken of {len(self)}: {named})"
            )
        for n, error in broken:
            self._count(n, error)

    def _has_own_files(self) -> bool:
        """Whether each image is a file of its own, and no part of one that threads would share."""
        try:
            file, _ = self.reader[0]
        except (InputError, OSError):
            return False
        with file if hasattr(file, "close") else nullcontext():
            return isinstance(getattr(file, "raw", None), FileIO)

    def _error_of(self, index: int) -> Exception | None:
        try:
            self._read(index)
        except (InputError, OSError) as error:
            return error
        return None

    def _read(self, index: int) -> tuple[Image.Image, int]:
        file, label = self.reader[index]
        with file if hasattr(file, "close") else nullcontext():
            return read_image(file, self.channels), label

    def _count(self, index: int, error: Exception) -> None:
        self.bad[index] = 1
        bad = int(self.bad.sum())
        _log.warning("%s; another replaces it (%d of %d files so far)", error, bad, len(self))
        if bad > self.bad_share * len(self):
            raise InputError(
                f"{bad} of {len(self)} image files cannot be read, and bad_share allows a share of "
                f"{self.bad_share:g}; the last one: {error}"
            )
