import jax.numpy as jnp
import pytest

from connectinfer.optimisation.progress import compile_timed, progress_bar, trace_timed


def square_sum(parameters, x):
    return (parameters["w"] * x**2).sum()


def test_the_compiled_function_computes_what_the_function_computes_for_any_values(capsys):
    lowered = trace_timed(square_sum, {"w": jnp.zeros(3)}, jnp.zeros(3), name="a sum", show=False)
    compiled = compile_timed(lowered, "a sum", show=False)
    arguments = {"w": jnp.array([1.0, 2.0, 3.0])}, jnp.array([1.0, -2.0, 0.5])
    assert compiled(*arguments) == 9.75
    with pytest.raises(TypeError, match="float32"):
        compiled(arguments[0], jnp.zeros(4))
    assert capsys.readouterr() == ("", "")


def test_tracing_and_compilation_are_announced_before_and_timed_after(capsys):
    seen = []

    def traced(x):
        seen.append(capsys.readouterr().err)
        return x + 1

    compile_timed(trace_timed(traced, jnp.zeros(2), name="NUTS"), "NUTS")
    assert seen == ["tracing NUTS ...\n"]
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert [line.split(" took ")[0] for line in lines] == ["tracing NUTS", "compiling NUTS ...", "compiling NUTS"]
    assert lines[-1].endswith(" s")


def test_the_bar_ends_with_the_steps_done_and_the_last_text(capsys):
    with progress_bar("SVI", 30) as advance:
        advance(10, "loss 3.5")
        advance(20, "loss 1.25")
    shown = capsys.readouterr()
    assert shown.out == ""
    line = shown.err.strip().splitlines()[-1]
    assert line.startswith("SVI")
    assert "30/30" in line
    assert line.endswith("loss 1.25")


def test_a_silent_bar_prints_nothing_and_takes_the_same_calls(capsys):
    with progress_bar("SVI", 30, show=False) as advance:
        advance(10, "loss 3.5")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("show", [True, False])
def test_an_interruption_passes_through_the_bar(show):
    with pytest.raises(KeyboardInterrupt), progress_bar("SVI", 30, show):
        raise KeyboardInterrupt
