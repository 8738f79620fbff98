"""How strong the five severities of each corruption are, by modality: MedMNIST-C's numbers (Di Salvo et al. 2024).

Of modalities with several sets, histology has PathMNIST's and x-ray ChestMNIST's; images of unknown modality have those
of x-ray. What the numbers mean is said by the functions of bench/corruptions.py.
"""

from __future__ import annotations

from typing import Any

_X_RAY: dict[str, tuple[Any, ...]] = {
    "pixelate": (0.3, 0.25, 0.2, 0.15, 0.1), "jpeg": (50, 30, 15, 10, 7), "gaussian": (0.04, 0.08, 0.12, 0.18, 0.26),
    "speckle": (0.05, 0.15, 0.2, 0.35, 0.45), "impulse": (0.01, 0.03, 0.06, 0.09, 0.17), "shot": (60, 25, 18, 10, 5),
    "blur": (3, 5, 7, 9, 11), "brighter": (1.1, 1.2, 1.3, 1.4, 1.5), "darker": (0.9, 0.8, 0.7, 0.6, 0.5),
    "contrast_up": (1.1, 1.2, 1.3, 1.4, 1.6), "contrast_down": (0.9, 0.8, 0.7, 0.6, 0.4),
    "gamma_up": (1.1, 1.2, 1.3, 1.4, 1.6), "gamma_down": (0.9, 0.8, 0.7, 0.6, 0.4),
}  # fmt: skip
STRENGTHS: dict[str, dict[str, tuple[Any, ...]]] = {
    "histology": {
        "pixelate": (0.8, 0.6, 0.4, 0.3, 0.25), "jpeg": (50, 30, 15, 10, 7), "defocus": (3, 4, 5, 6, 7),
        "motion": ((5, 5), (10, 5), (15, 5), (15, 8), (15, 12)), "brighter": (1.1, 1.15, 1.2, 1.22, 1.25),
        "darker": (0.85, 0.8, 0.75, 0.72, 0.7), "contrast_up": (1.1, 1.2, 1.3, 1.4, 1.6),
        "contrast_down": (0.8, 0.7, 0.6, 0.55, 0.5), "saturate": (0.05, 0.1, 0.15, 0.2, 0.25),
        "stain": (1, 2, 3, 4, 5), "bubble": ((7, 15), (10, 15), (12, 15), (15, 20), (17, 25)),
    },
    "dermatoscopy": {
        "pixelate": (0.7, 0.5, 0.4, 0.3, 0.25), "jpeg": (30, 20, 15, 10, 7),
        "gaussian": (0.04, 0.08, 0.12, 0.18, 0.26), "speckle": (0.05, 0.15, 0.2, 0.35, 0.45),
        "impulse": (0.01, 0.03, 0.06, 0.09, 0.17), "shot": (60, 25, 18, 10, 5), "defocus": (4, 5, 6, 7, 8),
        "motion": ((10, 5), (15, 5), (15, 8), (15, 12), (20, 15)), "zoom": (1.1, 1.15, 1.2, 1.25, 1.3),
        "brighter": (1.1, 1.2, 1.3, 1.4, 1.5), "darker": (0.9, 0.8, 0.7, 0.6, 0.5),
        "contrast_up": (1.1, 1.2, 1.3, 1.4, 1.6), "contrast_down": (0.8, 0.7, 0.6, 0.5, 0.4),
        "corner": (1.1, 1.05, 1, 0.95, 0.9), "characters": ((1, 6), (2, 7), (3, 8), (4, 9), (6, 10)),
    },
    "fundus": {
        "pixelate": (0.8, 0.6, 0.5, 0.4, 0.35), "jpeg": (30, 25, 20, 10, 5),
        "gaussian": (0.04, 0.08, 0.12, 0.16, 0.2), "speckle": (0.1, 0.15, 0.2, 0.25, 0.3), "defocus": (4, 5, 6, 7, 8),
        "motion": ((8, 5), (15, 5), (15, 8), (15, 12), (20, 15)), "darker": (0.9, 0.8, 0.7, 0.6, 0.5),
        "contrast_down": (0.9, 0.8, 0.7, 0.6, 0.4),
    },
    "microscopy": {
        "pixelate": (0.4, 0.3, 0.2, 0.15, 0.1), "jpeg": (25, 20, 15, 10, 7),
        "impulse": (0.01, 0.015, 0.02, 0.025, 0.03), "blur": (13, 15, 17, 21, 25),
        "brighter": (1.3, 1.4, 1.5, 1.6, 1.7), "darker": (0.8, 0.7, 0.6, 0.5, 0.4),
        "contrast_up": (1.1, 1.2, 1.3, 1.4, 1.6), "contrast_down": (0.9, 0.8, 0.7, 0.6, 0.4),
    },
    "oct": {
        "pixelate": (0.3, 0.25, 0.2, 0.15, 0.1), "jpeg": (30, 15, 10, 7, 5), "speckle": (0.15, 0.3, 0.4, 0.5, 0.6),
        "defocus": (0.5, 1, 1.5, 2, 2.5), "motion": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "contrast_down": (0.6, 0.4, 0.3, 0.2, 0.15),
    },
    "ultrasound": {
        "pixelate": (0.3, 0.25, 0.2, 0.15, 0.1), "jpeg": (50, 30, 15, 10, 7), "speckle": (0.1, 0.15, 0.2, 0.25, 0.3),
        "motion": ((5, 5), (9, 7), (9, 10), (13, 10), (17, 12)), "brighter": (1.4, 1.5, 1.6, 1.8, 2),
        "darker": (0.55, 0.5, 0.45, 0.4, 0.3), "contrast_down": (0.9, 0.8, 0.7, 0.6, 0.4),
    },
    "ct": {
        "pixelate": (0.7, 0.6, 0.5, 0.4, 0.35), "jpeg": (50, 30, 15, 10, 7),
        "gaussian": (0.04, 0.08, 0.12, 0.16, 0.2), "speckle": (0.05, 0.1, 0.2, 0.3, 0.4),
        "impulse": (0.01, 0.02, 0.03, 0.05, 0.08), "shot": (200, 100, 50, 25, 15), "blur": (11, 13, 15, 17, 21),
        "brighter": (1.2, 1.3, 1.4, 1.5, 1.6), "darker": (0.8, 0.75, 0.7, 0.65, 0.6),
        "contrast_up": (1.3, 1.4, 1.6, 1.7, 1.8), "contrast_down": (0.8, 0.7, 0.6, 0.55, 0.5),
        "gamma_up": (1.3, 1.4, 1.6, 1.8, 2), "gamma_down": (0.9, 0.8, 0.7, 0.6, 0.4),
    },
    "x-ray": _X_RAY,
    "unknown": _X_RAY,
}  # fmt: skip
