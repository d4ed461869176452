"""On Ray: callers whose replicas are killed, added and taken away end with a Stream's bits; sequences of Ray Data are Session.run's."""

import asyncio
import contextlib
import os
import random
import socket
import time

import numpy as np
import pytest
from running_server import Running
from served import I, alone, frames, lstm, same

import fastrnn as fr

ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
pytest.importorskip("mmh3", reason="the extra 'ray' is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    from ray import serve

    os.environ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"  # five seconds are few where the processors are busy
    with contextlib.chdir(
        tmp_path_factory.mktemp("ray")
    ):  # Ray's workers import from the folder it starts in, which would be the sources here, not what is installed
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        serve.http_port = free.getsockname()[1]
    serve.start(http_options={"port": serve.http_port})
    yield serve
    serve.shutdown()
    ray.shutdown()


def application(serve, replicas, route=None):
    from fastrnn.serving.ray import app

    return serve.run(app(lstm(), replicas=replicas, idle_timeout_s=None, actor_options={"num_cpus": 0.2}), name="fastrnn", route_prefix=route)


def replicas_now():
    return [
        ray.get_actor(one["name"], namespace=one["namespace"])
        for one in ray.util.list_named_actors(all_namespaces=True)
        if one["name"].startswith("SERVE_REPLICA::")
    ]


async def session(handle, xs, disturbed, **options):
    """All answers of one caller, which is told when it has done each step."""
    from fastrnn.serving.ray import Caller

    caller, ys = Caller(handle, **options), []
    for k, x in enumerate(xs):
        ys.append(await caller.step(x, end=k == len(xs) - 1))
        await disturbed(k)
    return ys, caller.resumed


async def disturb(handle, xs, events):
    """Sessions side by side; events: {steps done by all together: what happens then}. Their answers, and how often a state was sent."""
    done, left = 0, dict(events)

    async def disturbed(_):
        nonlocal done
        done += 1
        if done in left:
            await asyncio.to_thread(left.pop(done))

    found = await asyncio.gather(*(session(handle, x, disturbed) for x in xs))
    assert not left
    return [ys for ys, _ in found], sum(n for _, n in found)


def kill():
    ray.kill(random.choice(replicas_now()))


def scaled(serve, replicas):
    def scale():
        application(serve, replicas)

    return scale


def test_a_killed_replica_and_scaling_lose_nobody(serve):
    handle, xs = application(serve, 2), frames(8, 30)
    got, resumed = asyncio.run(disturb(handle, xs, {60: kill, 120: scaled(serve, 1), 180: scaled(serve, 2)}))
    assert all(same(ys, alone(lstm(), x)) for ys, x in zip(got, xs)) and resumed > 0


def test_over_http_a_client_with_a_token_goes_on_at_another_replica(serve):
    application(serve, 2, "/")
    server, xs = object.__new__(Running), frames(3, 20)
    server.url, tokens, numbers = f"127.0.0.1:{serve.http_port}", [""] * 3, range(3)

    def ask(c, k, **more):
        status, answer = server.infer("fastrnn", {"x": xs[c][k][None]}, {"x-session-id": f"c{c}"}, sequence_id=f"c{c}", step=k, **more)
        return answer if status == 200 else status

    def step(c, k):
        until, again = time.monotonic() + 30, k == 0
        while not isinstance(answer := ask(c, k, sequence_start=again, state_token=tokens[c] if again else "", sequence_end=k == 19), dict):
            assert answer in (404, 409, 500, 503) and time.monotonic() < until, answer
            again = answer in (404, 409) or again
            time.sleep(0.05)
        tokens[c] = answer["parameters"]["state_token"]
        return answer["arrays"]["y"][0]

    got = [[] for _ in numbers]
    for k in range(20):
        for c in numbers:
            got[c].append(step(c, k))
        if k == 8:
            kill()
        if k == 14:
            application(serve, 1, "/")
    assert all(same(got[c], alone(lstm(), xs[c])) for c in numbers)
    assert server.get("/v2/models/fastrnn")[0] == 200 and ask(0, 3) in (404, 409) and server.get("/v2/models/other")[0] == 404


def test_what_is_refused(serve):
    from fastrnn.serving.ray import Caller

    handle, (xs,) = application(serve, 1), frames(1, 3)
    caller = Caller(handle, id="one")
    ys = [caller.step_sync(xs[0])]
    other = Caller(handle, state=caller.state, number=caller.number)
    with pytest.raises(fr.ShapeError, match="shape"):
        caller.step_sync(xs[0][:3])
    with pytest.raises(fr.StateError, match="both or none"):
        Caller(handle, number=3)
    ys.append(caller.step_sync(xs[1]))
    with pytest.raises(fr.StateError, match="started already"):
        Caller(handle, id="one").step_sync(xs[0])
    assert same([*ys, caller.step_sync(xs[2], end=True)], alone(lstm(), xs)) and same([other.step_sync(xs[1])], alone(lstm(), xs)[1:2])
    with pytest.raises(fr.UnknownStreamError, match="has ended"):
        caller.step_sync(xs[0])
    with pytest.raises(fr.StateError, match="not an exported stream"):
        Caller(handle, state=b"noise", number=3).step_sync(xs[0])


def test_a_retried_step_is_done_once(serve):
    handle, (xs,) = application(serve, 1), frames(1, 3)

    async def ask(number, first=False, state=None):
        return await handle.options(session_id="again").step.remote("again", number, xs[number], False, first, state)

    async def main():
        before = None
        for k in range(3):
            kind, y, state = await ask(k, k == 0)
            again = await ask(k, k == 0)
            with_state = await ask(k, False, before) if k else again
            assert kind == "done" and same([again[1], with_state[1]], [y, y]) and again[2] == with_state[2] == state
            before = state
        late = await ask(0)
        back = await handle.options(session_id="again").step.remote(
            "again", 5, xs[0], False, False, before
        )  # the stream here is behind: from the state
        return late, back

    late, back = asyncio.run(main())
    assert late[0] == "with state" and "step 3 is next" in late[1]
    assert same([back[1]], alone(lstm(), [*xs, xs[0]])[3:])


def test_predictor_is_session_run(serve):
    sequences(serve, 60)


def sequences(serve, n):
    ray_data = pytest.importorskip("ray.data", reason="the extra 'ray' is not installed")
    from fastrnn.serving.ray import Predictor

    rng, one = np.random.default_rng(0), fr.compile(fr.GRU(I, 6, bidirectional=True, seed=2))
    rows = [{"id": k, "x": rng.standard_normal((int(rng.integers(0, 40)), I)).astype(np.float32)} for k in range(n)]
    found = (
        ray_data.from_items([{"id": row["id"], "features": row["x"]} for row in rows], override_num_blocks=4)
        .map_batches(Predictor, fn_constructor_args=[one, {"x": "features"}], batch_size=64, concurrency=1, num_cpus=1)
        .take_all()
    )
    assert len(found) == n
    for row in found:
        wanted = one.run({"x": rows[row["id"]]["x"][:, None]})
        assert np.asarray(row["y"]).tobytes() == wanted["y"][:, 0].tobytes() and np.asarray(row["h_n"]).tobytes() == wanted["h_n"][:, 0].tobytes()


def test_a_predictor_by_itself():
    from fastrnn.serving.ray import Predictor

    one = fr.compile(fr.LSTM(I, 4, seed=2))
    xs = list(frames(3, 6))
    same_lengths = Predictor(one)({"x": np.stack(xs), "id": np.arange(3)})
    assert same_lengths["y"].shape == (3, 6, 4) and all(same([y], [one(x[:, None])[0][:, 0]]) for y, x in zip(same_lengths["y"], xs))
    with pytest.raises(fr.ShapeError, match="column 'x' is missing"):
        Predictor(one)({"z": np.stack(xs)})


@pytest.mark.slow
def test_many_sessions_many_faults(serve):
    handle, xs = application(serve, 2), frames(200, 100)
    events = {1500 * k: kill for k in range(1, 11)} | {6200: scaled(serve, 1), 10_700: scaled(serve, 2), 15_200: scaled(serve, 1)}
    began = time.monotonic()
    got, resumed = asyncio.run(disturb(handle, xs, events))
    wrong = sum(not same(ys, alone(lstm(), x)) for ys, x in zip(got, xs))
    print(
        f"200 sessions x 100 steps in {time.monotonic() - began:.0f} s, 10 replicas killed, scaled 2, 1, 2, 1: {wrong} differ, states sent {resumed} times"
    )
    assert wrong == 0 and resumed >= 100


@pytest.mark.slow
def test_many_sequences(serve):
    sequences(serve, 10_000)
