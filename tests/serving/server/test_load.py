"""Who is taken: as many as the loop carries, however they come, and nobody while it is late."""

import asyncio
import json
import time

import pytest
from running_server import Running
from served import lstm
from websockets.asyncio.client import connect

import fastrnn as fr
from fastrnn.serving.server.limits import Limits
from fastrnn.serving.server.load import TICK_S, UNKNOWN, Load


def joined(load, each, came, seconds, callers=0):
    """How many are in after `came` (of a second, so many a tick) for some seconds, each of them `each` of the loop's time from the next tick on."""
    for _ in range(round(seconds / TICK_S)):
        for _ in range(came):
            try:
                load.check(callers)
                callers += 1
            except fr.OverloadedError:
                pass
        load.see(TICK_S, min(1.0, each * callers), max(0.0, each * callers - 1.0) * TICK_S, callers)
    return callers


@pytest.mark.parametrize("each", [1 / 400, 1 / 100, 1 / 20])
def test_callers_who_join_one_by_one_are_taken_up_to_the_share(each):
    assert 0.85 * 0.7 / each <= joined(Load(0.7), each, 1, 40) <= 0.7 / each + 1


@pytest.mark.parametrize("each", [1 / 400, 1 / 250])
def test_a_crowd_is_taken_up_to_the_share(each):
    load = Load(0.7)
    first = joined(load, each, 1000, TICK_S)
    assert abs(first - 0.7 / UNKNOWN) <= 1  # what one takes is not known yet
    assert 0.95 * 0.7 / each <= joined(load, each, 1000, 30, first) <= 0.7 / each + 1


def test_callers_who_take_next_to_nothing_come_at_a_rate():
    assert 120 * 10 < joined(Load(0.7), 1e-6, 1000, 10) < 160 * 10


def test_a_loop_that_was_late_is_calm_before_it_takes_anybody():
    load = Load(0.7, 0.010)
    for _ in range(3):
        load.see(TICK_S, 0.1, 0.020, 1)
    load.check(1)  # a pause is no lateness
    for _ in range(40):
        load.see(TICK_S, 0.1, 0.020, 1)
    with pytest.raises(fr.OverloadedError, match="ms behind, and takes no more callers from 10 on"):
        load.check(1)
    late = []
    for _ in range(40):
        load.see(TICK_S, 0.1, 0.0, 1)
        late.append((load.lag_s, load.late))
    assert late[-1] == (late[-1][0], False) and any(lag < 0.010 and is_late for lag, is_late in late)
    load.check(1)


def test_a_step_on_a_thread_of_its_own_counts():
    load = Load(0.7)
    load.begin()
    for k in range(1, 30):
        time.sleep(0.02)
        load.tick(1, 10.0 * k)
    assert load.busy > 0.7
    with pytest.raises(fr.OverloadedError, match="which 2 callers would make"):
        load.check(1)


def test_a_server_that_is_busy_refuses_by_name():
    async def main(server):
        async with connect(f"ws://{server.url}/v2/models/lstm/stream") as socket:
            told = json.loads(await socket.recv())
            await socket.wait_closed()
            return socket.close_code, told["name"]

    with Running({"lstm": lstm()}, limits=Limits(busy=1e-6, drain_s=0.1)) as server:
        assert asyncio.run(main(server)) == (1013, "OverloadedError")
        assert b"fastrnn_loop_busy" in server.get("/metrics")[2]
