"""How an electron microscope turns a specimen into contrast. Lengths in A, voltage in kV, dose in e/A2."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def wavelength(voltage: float) -> float:
    """Relativistic wavelength (A) of electrons of `voltage` kV."""
    volts = voltage * 1e3
    return float(12.2643 / np.sqrt(volts * (1 + 0.978466e-6 * volts)))


def interaction(voltage: float) -> float:
    """Phase shift (rad) for a projected potential of 1 V A."""
    volts = voltage * 1e3
    rest = 510_998.95
    return float(2 * np.pi / (wavelength(voltage) * volts) * (rest + volts) / (2 * rest + volts))


def frequencies(shape: tuple[int, int], pixel_size: float) -> Floats:
    """Spatial frequency (1/A) of each element of `rfft2` of an image of `shape` (rows, columns)."""
    y = np.fft.fftfreq(shape[0], pixel_size).astype(np.float32)
    x = np.fft.rfftfreq(shape[1], pixel_size).astype(np.float32)
    return np.hypot(y[:, None], x[None, :])


def contrast_transfer(
    s: Floats, defocus: float, voltage: float, cs: float, amplitude_contrast: float
) -> Floats:
    """Contrast transfer at frequencies `s` (1/A): negative where matter looks dark.

    defocus: A, positive is underfocus. cs: spherical aberration in mm.
    """
    lam = wavelength(voltage)
    s2 = s * s
    chi = np.float32(np.pi * lam * defocus) * s2 - np.float32(np.pi / 2 * cs * 1e7 * lam**3) * s2 * s2
    transfer: Floats = -np.sin(chi + np.float32(np.arcsin(amplitude_contrast)))
    return transfer


def damage(s: Floats, dose: float, voltage: float) -> Floats:
    """What is left of the amplitudes at frequencies `s` (1/A) after `dose` e/A2.

    Critical exposure of Grant & Grigorieff, eLife 2015;4:e06980, eq. 3; a fifth less at 200 kV.
    """
    with np.errstate(divide="ignore"):
        critical = np.float32(0.24499) * s ** np.float32(-1.6649) + np.float32(2.8141)
    left: Floats = np.exp(np.float32(-0.5 * dose / (1.0 if voltage > 250 else 0.8)) / critical)
    return left
