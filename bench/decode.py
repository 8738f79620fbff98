"""One image file -> uint8 pixels: PNG, JPEG and TIFF through Pillow, DICOM through pydicom (an extra).

Of Pillow's many readers only those three are asked, whatever a file is called: that for EPS, for one, would hand the
file to Ghostscript, which runs it as a program. Sizes are checked before pixels are decoded.

8-bit images stay as they are. 16-bit ones are scaled by their type's range (0..65535 -> 0..255), so that brightness
stays comparable between images (`share_of_16_bit` says how much of it one uses); 32-bit and float images, which have no
such range, each by their own minimum and maximum. DICOM: rescale slope and intercept, then the file's (first) window,
or else the image's own minimum and maximum; MONOCHROME1 is inverted.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from bench.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm")
GRAY_MODES = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L"}
PIXELS = 1 << 27
"""Of the largest image that is read, 11585 x 11585: networks see a few hundred pixels a side."""
CODE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
"""Of this file: pixels that an earlier version of it decoded are not to be used."""
_FORMATS = ("PNG", "JPEG", "TIFF")
_FIX = "Replace it by an intact PNG, JPEG, TIFF or DICOM file, or remove it."


def is_dicom(path: Path) -> bool:
    """By the name; of any name that is no image's, as on a hospital's CD (IM0005, 1.2.840.1), by its first bytes (DICOM
    PS3.10 7.1). Raises OSError."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return suffix == ".dcm"
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def is_gray(path: Path) -> bool:
    """From the header alone. Raises DataError."""
    if is_dicom(path):
        return bool(_dicom(path, pixels=False).SamplesPerPixel == 1)
    with _pillow(path) as image:
        return image.mode in GRAY_MODES


def longer_side(path: Path) -> int:
    """In pixels, from the header alone. Raises DataError."""
    if is_dicom(path):
        header = _dicom(path, pixels=False)
        return max(int(header.Columns), int(header.Rows))
    with _pillow(path) as image:
        return max(image.size)


def share_of_16_bit(path: Path) -> float | None:
    """The brightest pixel of a gray 16-bit PNG or TIFF as a share of 65535; None for any other image. Raises
    DataError."""
    if is_dicom(path):
        return None
    with _pillow(path) as image:
        if not _is_16_bit(image):
            return None
        try:
            return float(np.asarray(image).max()) / 65535
        except Exception as error:  # Pillow raises many types on damaged files
            raise _damaged(path, error) from error


def decode(path: Path, size: int, gray: bool) -> np.ndarray:
    """uint8 [size, size] or, unless `gray`, [size, size, 3]: padded to a square with black, then resized (bilinear,
    antialiased). Raises DataError."""
    try:
        image = _decode_dicom(path) if is_dicom(path) else _decode_pillow(path, size)
    except DataError:
        raise
    except Exception as error:  # Pillow and pydicom raise many types on damaged files
        raise _damaged(path, error) from error
    image = image.convert("L" if gray else "RGB")
    side = max(image.size)
    if image.size != (side, side):
        square = Image.new(image.mode, (side, side))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        image = square
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _pillow(path: Path) -> Image.Image:
    try:
        image = Image.open(path, formats=_FORMATS)
        pages = getattr(image, "n_frames", 1)
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: has more than {PIXELS} pixels. Make it smaller, or cut it up.") from error
    except Exception as error:  # Pillow raises many types on malformed headers
        raise DataError(f"{path}: not a readable image ({_reason(error)}). {_FIX}") from error
    if pages > 1:
        raise DataError(f"{path}: has {pages} pages, expected one image. Save the pages as files of their own.")
    _check_size(path, *image.size)
    return image


def _check_size(path: Path, width: int, height: int) -> None:
    """An image is padded to a square, so it is the longer side that counts."""
    if max(width, height) ** 2 > PIXELS:
        raise DataError(
            f"{path}: {width} x {height} px, more than {math.isqrt(PIXELS)} a side. Make it smaller, or cut it up."
        )


def _is_16_bit(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")  # a PNG's "I" is 16 bits


def _decode_pillow(path: Path, size: int) -> Image.Image:
    with _pillow(path) as image:
        image.draft(None, (size, size))  # a JPEG is decoded at 1/2, 1/4 or 1/8 where that is still large enough
        image.load()
        upright = ImageOps.exif_transpose(image)
        if _is_16_bit(image):
            return Image.fromarray((np.asarray(upright) / 257.0).round().astype(np.uint8))
        if upright.mode in ("I", "F"):
            return Image.fromarray(_stretch(path, np.asarray(upright, dtype=np.float64)))
        # Transparent parts may hide any colour: they are shown on black, as the padding is.
        if "A" in upright.getbands() or "transparency" in upright.info:
            upright = upright.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", upright.size, (0, 0, 0, 255)), upright).convert("RGB")
        return upright.convert("L" if upright.mode in GRAY_MODES else "RGB")


def _decode_dicom(path: Path) -> Image.Image:
    header = _dicom(path, pixels=True)
    pydicom = _pydicom(path)
    _check_size(path, int(header.Columns), int(header.Rows))
    if (frames := int(header.get("NumberOfFrames", 1) or 1)) > 1:
        raise DataError(f"{path}: has {frames} frames, expected one image. Save the frames as files of their own.")
    try:
        pixels = pydicom.pixels.pixel_array(header)
        if pixels.ndim == 3:
            return Image.fromarray(pixels if pixels.dtype == np.uint8 else _stretch(path, pixels.astype(np.float64)))
        values = np.asarray(pydicom.pixels.apply_modality_lut(pixels, header), dtype=np.float64)
        scaled = _window(header, values) if header.get("WindowWidth") else _stretch(path, values)
    except DataError:
        raise
    except Exception as error:  # pydicom raises many types on damaged pixel data and missing codecs
        raise DataError(
            f"{path}: the DICOM pixels cannot be read ({_reason(error)}). Save them uncompressed, or as PNG."
        ) from error
    return Image.fromarray(255 - scaled if header.PhotometricInterpretation == "MONOCHROME1" else scaled)


def _window(header: Any, values: np.ndarray) -> np.ndarray:
    """The linear window of DICOM PS3.3 C.11.2.1.2."""
    centre, width = _first(header.WindowCenter), _first(header.WindowWidth)
    unit = (values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5
    return np.asarray((unit.clip(0, 1) * 255).round(), dtype=np.uint8)


def _first(value: Any) -> float:
    return float(value[0] if hasattr(value, "__getitem__") else value)


def _stretch(path: Path, values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{path}: has pixels that are not finite. Replace them by numbers, or remove the file.")
    return np.asarray(((values - low) / max(high - low, 1e-12) * 255).round(), dtype=np.uint8)


def _dicom(path: Path, pixels: bool) -> Any:
    pydicom = _pydicom(path)
    try:
        syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID")
        if syntax == pydicom.uid.DeflatedExplicitVRLittleEndian:
            # pydicom unpacks all of the file at once, however large it becomes.
            raise DataError(f"{path}: a deflated DICOM file, which is not read. Save it uncompressed, or as PNG.")
        header = pydicom.dcmread(path, stop_before_pixels=not pixels)
        _ = header.SamplesPerPixel, header.PhotometricInterpretation, header.Columns, header.Rows
    except DataError:
        raise
    except Exception as error:  # pydicom raises many types on malformed files
        raise DataError(f"{path}: not a readable DICOM image ({_reason(error)}). {_FIX}") from error
    return header


def _pydicom(path: Path) -> ModuleType:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise DataError(f"{path}: DICOM files need pydicom. pip install medtransfer[dicom]") from error
    module: ModuleType = pydicom
    return module


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: damaged or cut short ({_reason(error)}). {_FIX}")


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
