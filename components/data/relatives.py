"""Which images share a patient or a picture with images that a model has seen.

Steps in every image ask it, so it needs NumPy and pandas alone.
"""

import numpy as np
import pandas as pd

from components.data.sources import patient_id

# What two images are recognised by as relatives.
IDENTITY = ["id", "patient", "sha256", "perceptual_hash"]
# Of 256 bits; far from both the pairs of one picture and all other pairs: see docs/data.md.
NEAR_DUPLICATE_BITS = 32
_BLOCK = 2048


def relatives(examples: pd.DataFrame, seen: pd.DataFrame) -> np.ndarray:
    """Returns which images share a patient or a picture with images that a model has seen.

    The same picture: the same bytes, or perceptual hashes at most `NEAR_DUPLICATE_BITS` apart.

    Args:
      examples, seen: with the columns of `IDENTITY`.

    Returns:
      bool array [rows of `examples`]; true, too, of those related through others of the examples.
    """
    patients, pictures = examples["patient"].map(same_patient), examples["sha256"]
    signs = signs_of(examples["perceptual_hash"])
    related = np.zeros(len(examples), bool)
    fresh_patients, fresh_pictures = seen["patient"].map(same_patient), seen["sha256"]
    fresh_signs = signs_of(seen["perceptual_hash"])
    while len(fresh_patients):
        direct = patients.isin(fresh_patients).to_numpy() | pictures.isin(fresh_pictures).to_numpy()
        new = ~related & (direct | _near(signs, fresh_signs))
        related |= new
        fresh_patients, fresh_pictures, fresh_signs = patients[new], pictures[new], signs[new]
    return related


def signs_of(perceptual_hashes: pd.Series) -> np.ndarray:
    """Returns hashes as -1 and 1, so that a product of two is (bits - 2 x distance).

    Args:
      perceptual_hashes: hexadecimal digits, all of one length.

    Returns:
      float32 [hashes, bits].
    """
    if perceptual_hashes.empty:
        return np.empty((0, 0), np.float32)
    octets = np.array([list(bytes.fromhex(text)) for text in perceptual_hashes], np.uint8)
    return np.unpackbits(octets, axis=1).astype(np.float32) * 2 - 1


def same_patient(patient: str) -> str:
    """Returns a patient as `sources.Row` writes it; older archives hold ids that are not normalised."""
    source, _, identity = patient.partition("/")
    return f"{source}/{patient_id(identity)}"


def _near(signs: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns which hashes are near one of the others, bool [hashes]; block by block, to save memory."""
    near = np.zeros(len(signs), bool)
    if not len(signs) or not len(others):
        return near
    least = signs.shape[1] - 2 * NEAR_DUPLICATE_BITS
    for start in range(0, len(signs), _BLOCK):
        block = signs[start : start + _BLOCK]
        for other in range(0, len(others), _BLOCK):
            close = block @ others[other : other + _BLOCK].T >= least
            near[start : start + _BLOCK] |= close.any(axis=1)
    return near
