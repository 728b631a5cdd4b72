"""One driver per store: others are turned away, and a driver that dies or loses its lock makes room for the next."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from object_server import Flaky
from test_object_store import dead
from test_store import small

import store
from store import place as places
from store.place import lease, place


def test_a_second_driver_is_turned_away_and_the_next_one_let_in(root, quick):
    small(root)
    for _ in range(2):
        with lease.held(root):
            with pytest.raises(lease.Held, match=rf"another run .*is writing to {root}; wait for it"), lease.held(root):
                pass
            assert lease.FILE in root.names()
    assert len(store.open(root)) == 0


def test_the_lock_of_a_driver_that_died_is_waited_for_and_taken_over(s3, quick):
    dead(s3)
    with lease.held(s3), pytest.raises(lease.Held), lease.held(s3):
        pass


def test_of_several_who_wait_for_a_dead_driver_one_gets_the_lock(s3, quick):
    dead(s3)
    inside, ended = [], threading.Barrier(4)

    def drive(k):
        try:
            with lease.held(s3):
                inside.append(k)
                ended.wait(20)
        except lease.Held:
            ended.wait(20)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(drive, range(4)))
    assert len(inside) == 1


def drive(where, meanwhile):
    """A driver that waits for its workers while something happens."""
    with lease.held(where):
        meanwhile()
        threading.Event().wait(20)
        raise AssertionError("it was not interrupted")


def test_a_driver_whose_lock_was_taken_is_interrupted_and_stops_with_an_error(s3, quick):
    def steal():
        thief = lease._Lease(place(s3))
        thief._look()
        while True:  # the holder may beat in between
            with suppress(places.Changed):
                return thief._write("thief")
            thief._look()

    with pytest.raises(lease.Lost, match=r"taken over s3://"):
        drive(s3, steal)
    assert lease._Lease(place(s3)).file.read_tagged()[0].startswith(b'{"holder": "thief"')  # and leaves it alone


def test_a_driver_that_cannot_renew_its_lock_stops_before_others_take_it(s3, s3_address, quick):
    flaky = Flaky(s3_address, (500,), times=0)
    with flaky.running() as address, pytest.raises(lease.Lost, match="could not be renewed"):
        drive(place(s3, {"aws_endpoint_url": address}), lambda: setattr(flaky, "times", 10**6))


def test_a_lock_outlasts_answers_that_get_lost(s3, s3_address, quick, monkeypatch):
    monkeypatch.setattr(lease, "LOST_S", 10.0)
    flaky = Flaky(s3_address, ("late", "drop", 500))
    with flaky.running() as address, lease.held(place(s3, {"aws_endpoint_url": address})):
        flaky.seen.clear()  # the beats fail again
        while flaky.seen["PUT", f"/{s3.removeprefix('s3://')}/.lock"] < 6:
            threading.Event().wait(0.01)
    with lease.held(s3):  # it was given back
        pass


def test_ctrl_c_is_no_lost_lock(s3, quick):
    with pytest.raises(KeyboardInterrupt), lease.held(s3):
        raise KeyboardInterrupt
    assert pickle.loads(pickle.dumps(lease.Lost("gone"))).args == ("gone",)
