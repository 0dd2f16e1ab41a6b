import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.relatives import IDENTITY, NEAR_DUPLICATE_BITS, relatives
from components.data.splits import groups


def images(count: int, seed: int) -> pd.DataFrame:
    """Images of which some share a patient, some the bytes, and some nearly the picture."""
    random = np.random.default_rng(seed)
    pictures = [int.from_bytes(random.bytes(32), "big") for _ in range(count)]
    rows = []
    for number in range(count):
        bits = random.choice(256, int(random.integers(0, NEAR_DUPLICATE_BITS // 2 + 2)), False)
        picture = pictures[int(random.integers(number + 1))] ^ sum(1 << int(bit) for bit in bits)
        patient = f"clinic/{random.integers(2 * count)}"
        sha256 = str(random.integers(3 * count))
        rows.append((f"clinic/{number}.png", patient, sha256, f"{picture:064x}"))
    return pd.DataFrame(rows, columns=IDENTITY)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 30), seen=st.integers(0, 30), seed=st.integers(0, 10_000))
def test_relatives_are_those_that_a_split_would_keep_together(
    count: int, seen: int, seed: int
) -> None:
    everyone = images(count, seed)
    known, asked = everyone.iloc[:seen], everyone.iloc[seen:]
    group = groups(everyone)
    expected = np.isin(group[seen:], group[:seen])
    assert (relatives(asked, known) == expected).all()


def test_a_patient_is_the_same_however_the_id_is_written() -> None:
    one, other = images(2, 0).iloc[:1], images(2, 1).iloc[1:]
    both = one.assign(patient="nih/0313"), other.assign(patient="nih/313.0")
    assert relatives(*both).tolist() == [True]
    assert relatives(one.assign(patient="nih/1"), both[1]).tolist() == [False]
