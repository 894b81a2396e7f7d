import signal
import threading

import pytest

from connectinfer.optimisation.interruption import interruption_held


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


def test_threads_that_get_no_signals_are_left_alone():
    done = []

    def work():
        with interruption_held("working"):
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.getsignal(signal.SIGINT)]
