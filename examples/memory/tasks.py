"""Two tasks that need a long memory: adding (Hochreiter and Schmidhuber 1997) and copying, drawn anew for every batch."""

import numpy as np

SYMBOLS, ITEMS = 8, 5  # what is copied: ITEMS of SYMBOLS kinds
BLANK, ASK = SYMBOLS, SYMBOLS + 1


def adding(random: np.random.Generator, T: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """x (T, B, 2): numbers from 0 to 1, and marks at two of them, one in each half; the target (B, 1) is their sum. Always saying 1 costs 1/6."""
    x = np.zeros((T, batch, 2), np.float32)
    x[:, :, 0] = random.random((T, batch))
    rows = np.arange(batch)
    marks = np.stack([random.integers(0, T // 2, batch), random.integers(T // 2, T, batch)])
    x[marks, rows, 1] = 1
    return x, x[marks, rows, 0].sum(0)[:, None]


def copying(random: np.random.Generator, T: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """x (ITEMS + T + ITEMS, B, SYMBOLS + 2), one-hot: symbols, T blanks the last of which is a request, blanks; targets: blank, then the symbols."""
    symbols = random.integers(0, SYMBOLS, (ITEMS, batch))
    codes = np.full((2 * ITEMS + T, batch), BLANK)
    codes[:ITEMS], codes[-ITEMS - 1] = symbols, ASK
    target = np.full_like(codes, BLANK)
    target[-ITEMS:] = symbols
    return np.eye(SYMBOLS + 2, dtype=np.float32)[codes], target
