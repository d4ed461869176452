"""A recurrent policy steps 256 mazes at once; when a maze's episode ends, its stream starts afresh and the others go on.

    python examples/policy/run.py [--steps 2000] [--quick]          # ten seconds; needs nothing but fastrnn

The maze is the T of Bakker (2002), "Reinforcement Learning with Long Short-Term Memory": at the start a sign says left or right, a corridor of
random length follows, and at its end the turn has to be the sign's. A GRU learns it from what the right actions are. Prints how many turns are
right with resets and without, steps a second beside a loop over streams, and that both act the same.
"""

import argparse
import time

import numpy as np

import fastrnn as fr
import fastrnn.training as tr

MAZES, HIDDEN = 256, 32
LEFT, RIGHT, CORRIDOR, JUNCTION = range(4)  # what is seen
TURN_LEFT, TURN_RIGHT, FORWARD = range(3)  # what is done
SHORTEST, LONGEST = 5, 30


class Mazes:
    """n mazes. see() gives observations (n, 4); act(actions) says which episodes ended, and which of them well, and starts those anew."""

    def __init__(self, n: int, seed: int):
        self.rng, self.n = np.random.default_rng(seed), n
        self.at, self.length, self.sign = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._begin(np.ones(n, bool))

    def _begin(self, which: np.ndarray) -> None:
        self.at[which] = 0
        self.length[which], self.sign[which] = self.rng.integers(SHORTEST, LONGEST + 1, which.sum()), self.rng.integers(2, size=which.sum())

    def see(self) -> np.ndarray:
        """One of LEFT, RIGHT, CORRIDOR and JUNCTION for each maze, one-hot."""
        seen = np.where(self.at == 0, self.sign, np.where(self.at == self.length, JUNCTION, CORRIDOR))
        return np.eye(4, dtype=np.float32)[seen]

    def act(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A turn ends the episode, well where it is the sign's and at the junction; so does a wall that is walked into."""
        turned, junction = actions != FORWARD, self.at == self.length
        ended = turned | junction
        well = turned & junction & (actions == self.sign)
        self.at += 1
        self._begin(ended)
        return ended, well


def learn(epochs: int) -> fr.Session:
    """A policy trained on whole episodes of the right actions."""
    rng, xs, ys = np.random.default_rng(0), [], []
    for _ in range(512):
        length, sign = rng.integers(SHORTEST, LONGEST + 1), rng.integers(2)
        xs.append(np.eye(4, dtype=np.float32)[[sign, *[CORRIDOR] * (length - 1), JUNCTION]])
        ys.append(np.array([FORWARD] * length + [sign]))
    net = tr.Sequential(tr.GRU(4, HIDDEN), tr.Linear(HIDDEN, 3), seed=0)
    tr.fit(net, tr.cross_entropy, (xs, ys), optimiser=tr.Adam(net, lr=0.01), epochs=epochs, batch_size=32, clip_norm=1.0, seed=0)
    return fr.compile(net.to_model())


def play(session: fr.Session, steps: int, resets: bool) -> tuple[float, float, list[np.ndarray]]:
    """All mazes through one pool: the share of episodes that end well, microseconds in the policy a step of all, and the actions."""
    mazes, pool = Mazes(MAZES, seed=1), session.pool(MAZES)
    handles = [pool.open() for _ in range(MAZES)]
    logits, actions, ended_well, in_policy = np.empty((MAZES, 3), np.float32), [], [], 0.0
    for _ in range(steps):
        seen = mazes.see()
        started = time.perf_counter()
        pool.step(handles, seen, out=logits)
        in_policy += time.perf_counter() - started
        actions.append(logits.argmax(-1))
        ended, well = mazes.act(actions[-1])
        ended_well.append(well[ended])
        if resets:
            started = time.perf_counter()
            for k in np.flatnonzero(ended):
                pool.reset(handles[k])
            in_policy += time.perf_counter() - started
    return np.concatenate(ended_well).mean(), in_policy / steps * 1e6, actions


def play_one_by_one(session: fr.Session, steps: int) -> tuple[float, list[np.ndarray]]:
    """The same with a stream for each maze: microseconds a step of all, and the actions."""
    mazes, streams = Mazes(MAZES, seed=1), [session.stream() for _ in range(MAZES)]
    actions, in_policy = [], 0.0
    for _ in range(steps):
        seen = mazes.see()
        started = time.perf_counter()
        logits = np.concatenate([stream.step(seen[k : k + 1]) for k, stream in enumerate(streams)])
        in_policy += time.perf_counter() - started
        actions.append(logits.argmax(-1))
        ended, _ = mazes.act(actions[-1])
        for k in np.flatnonzero(ended):
            streams[k].reset()
    return in_policy / steps * 1e6, actions


def main() -> None:
    """Three runs of the same mazes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="of each maze")
    parser.add_argument("--quick", action="store_true", help="little training, few steps: whether it runs")
    given = parser.parse_args()
    steps = 100 if given.quick else given.steps
    session = learn(2 if given.quick else 15)
    well, us, actions = play(session, steps, resets=True)
    forgetful, _, _ = play(session, steps, resets=False)
    us_one_by_one, actions_one_by_one = play_one_by_one(session, steps)
    same = all(np.array_equal(a, b) for a, b in zip(actions, actions_one_by_one))
    print(f"turns that are right: {100 * well:.1f} % with resets, {100 * forgetful:.1f} % where streams run on into the next episode")
    print(
        f"{MAZES} mazes a step: {us:.0f} us in a pool, resets included; {us_one_by_one:.0f} us one stream after the other; "
        f"same actions: {'yes' if same else 'no'}"
    )


if __name__ == "__main__":
    main()
