import signal
import threading

import pytest

from connectinfer.optimisation.interruption import (
    interruption_deferred,
    interruption_held,
    terminations_interrupt,
)


def test_the_first_interruption_is_answered_and_the_second_one_interrupts(capsys):
    before = signal.getsignal(signal.SIGINT)
    with interruption_held("building the result"):
        signal.raise_signal(signal.SIGINT)
    assert "building the result; Ctrl-C once more stops it" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before

    @interruption_held("building the result")
    def interrupted(times):
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        return times

    # As a decorator it holds anew in every call.
    assert (interrupted(1), interrupted(1)) == (1, 1)
    with pytest.raises(KeyboardInterrupt):
        interrupted(2)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_deferred_interruption_comes_after_the_block(capsys):
    done = []

    @interruption_deferred()
    def save():
        signal.raise_signal(signal.SIGINT)
        done.append("saved")

    with pytest.raises(KeyboardInterrupt):
        save()
    assert done == ["saved"]
    assert capsys.readouterr() == ("", "")


def test_a_deferred_interruption_reaches_whoever_handles_it():
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: heard.append(number))
    try:
        with interruption_deferred():
            signal.raise_signal(signal.SIGINT)
            assert not heard
        assert heard == [signal.SIGINT]
        # What a shell makes background jobs ignore.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with interruption_deferred():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def no_handler():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("no_handler")
def test_a_termination_interrupts_and_is_held_and_deferred_like_ctrl_c():
    @terminations_interrupt()
    def terminated():
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        terminated()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with terminations_interrupt():
        with interruption_held("building the result"):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), interruption_deferred():
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("no_handler")
def test_a_program_that_handles_terminations_itself_goes_on_doing_so():
    heard = []
    signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    with terminations_interrupt(), interruption_deferred():
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]


def test_threads_that_get_no_signals_are_left_alone():
    done = []

    def work():
        with interruption_held("working"):
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.getsignal(signal.SIGINT)]
