"""Piano rolls of 88 keys as lists of (T, 88) arrays, and pieces as MIDI files.

The data: `NAME.npz` with, for each of train, valid and test, `_rolls`, the steps of all pieces one behind the other, their keys packed
eight to a byte, and `_lengths`, the steps of each piece.
"""

import os
from pathlib import Path

import mido
import numpy as np

KEYS = 88
LOWEST = 21  # the MIDI number of a piano's first key
TICKS = 240  # a step's, at 480 a beat
FOLDER = Path(os.environ.get("FASTRNN_SHARED") or Path(__file__).parents[3] / "shared") / "data"


def read(name: str, folder: Path) -> dict[str, list[np.ndarray]]:
    """Pieces by part, each (T, 88) float32 of 0 and 1. SystemExit where the file is not there."""
    path = folder / f"{name}.npz"
    if not path.exists():
        raise SystemExit(
            f"{path} is not there: say --data FOLDER, one with jsb_chorales.npz and nottingham.npz, or set FASTRNN_SHARED to the folder above it"
        )
    with np.load(path) as stored:
        return {part: pieces(stored[f"{part}_rolls"], stored[f"{part}_lengths"]) for part in ("train", "valid", "test")}


def pieces(packed: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Rows of 11 bytes cut into pieces of float32 keys."""
    rolls = np.unpackbits(packed, axis=1)[:, :KEYS].astype(np.float32)
    return np.split(rolls, np.cumsum(lengths)[:-1])


def write_midi(path: Path, roll: np.ndarray, beats_per_minute: int = 100) -> None:
    """(T, 88) of 0 and 1 as a MIDI file of one piano, two steps a beat; a key held over several steps is struck once."""
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(beats_per_minute))])
    padded = np.pad(roll.astype(np.int8), ((1, 1), (0, 0)))
    now = 0
    for step, change in enumerate(np.diff(padded, axis=0)):
        for kind, sign in (("note_off", -1), ("note_on", 1)):
            for key in np.flatnonzero(change == sign):
                track.append(mido.Message(kind, note=int(LOWEST + key), velocity=64, time=step * TICKS - now))
                now = step * TICKS
    mido.MidiFile(tracks=[track], ticks_per_beat=2 * TICKS).save(path)
