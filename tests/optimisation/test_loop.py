from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from connectinfer.optimisation import loop
from connectinfer.optimisation.loop import minimise

TARGET = np.array([1.0, -2.0, 0.5], np.float32)


def quadratic(parameters, key, data):
    del key
    return 0.5 * jnp.sum((parameters["w"] - data["target"]) ** 2)


def noisy(parameters, key, data):
    batch = data["target"] + jax.random.normal(key, (4, 3))
    return jnp.mean((parameters["w"] - batch) ** 2) + 0.1 * jnp.sum(parameters["v"] ** 2)


def start():
    return {"w": jnp.zeros(3), "v": jnp.ones(2)}


def data():
    return {"target": jnp.asarray(TARGET)}


def run(key, loss=noisy, parameters=None, optimizer=None, **options):
    options = {"steps": 25, "chunk": 10, "show_progress": False} | options
    parameters = start() if parameters is None else parameters
    given = options.pop("data", data())
    return minimise(key, loss, parameters, given, optimizer=optimizer or optax.adam(0.05), **options)


def python_loop(key, loss, parameters, optimizer, steps):
    """The same steps without a scan: every parameter value, and every loss."""
    state, visited, losses = optimizer.init(parameters), [parameters], []
    step = jax.jit(jax.value_and_grad(loss))
    for k in range(steps):
        value, gradient = step(parameters, jax.random.fold_in(key, k), data())
        updates, state = optimizer.update(gradient, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        visited.append(parameters)
        losses.append(float(value))
    return visited, np.array(losses)


def assert_same(found, expected, exact=True):
    compare = np.testing.assert_array_equal if exact else partial(np.testing.assert_allclose, rtol=1e-5)
    jax.tree.map(compare, found, expected)


@pytest.fixture(scope="module")
def whole():
    """25 steps in chunks of 10 that nothing interrupted."""
    return run(jax.random.key(0))


def interrupt_after(monkeypatch, chunks):
    """Ctrl-C while chunk number `chunks` (from 0) runs."""
    original = loop.compile_timed

    def compile_timed(*arguments, **options):
        compiled, calls = original(*arguments, **options), []

        def interrupted(*values):
            if len(calls) == chunks:
                raise KeyboardInterrupt
            calls.append(1)
            return compiled(*values)

        return interrupted

    monkeypatch.setattr(loop, "compile_timed", compile_timed)


def test_gradient_descent_on_a_quadratic_follows_the_closed_form(key):
    optimum = run(key, quadratic, {"w": jnp.zeros(3)}, optax.sgd(0.1), steps=40, chunk=20)
    # w_t = c (1 - 0.9^t), so the loss before step t is |c|^2 0.81^t / 2.
    np.testing.assert_allclose(optimum.losses, 0.5 * (TARGET**2).sum() * 0.81 ** np.arange(40), rtol=1e-4)
    np.testing.assert_allclose(optimum.parameters["w"], TARGET * (1 - 0.9**40), rtol=1e-5)
    assert optimum.best_loss == pytest.approx(optimum.losses[20:].mean(), rel=1e-5)
    assert optimum.status == "finished"


@pytest.mark.parametrize("chunk", [1, 10, 100])
def test_chunks_of_any_length_take_the_steps_of_a_plain_loop(key, chunk):
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 25))
    optimum = run(key, optimizer=optimizer, chunk=chunk)
    visited, losses = python_loop(key, noisy, start(), optimizer, 25)
    np.testing.assert_allclose(optimum.losses, losses, rtol=1e-5)
    ends = [min(first + chunk, 25) for first in range(0, 25, chunk)]
    means = [losses[first : first + chunk].mean() for first in range(0, 25, chunk)]
    best = int(np.argmin(means))
    assert_same(optimum.parameters, visited[ends[best]], exact=False)
    assert optimum.best_loss == pytest.approx(means[best], rel=1e-5)


def test_the_last_chunk_stops_where_the_steps_end(key):
    optimum = run(key, quadratic, {"w": jnp.zeros(3)}, optax.sgd(0.1), steps=25, chunk=20)
    assert optimum.losses.shape == (25,)
    np.testing.assert_allclose(optimum.parameters["w"], TARGET * (1 - 0.9**25), rtol=1e-5)
    assert optimum.best_loss == pytest.approx(optimum.losses[20:].mean(), rel=1e-5)


def test_the_parameters_of_the_best_chunk_are_kept_when_the_loss_climbs(key):
    # Steps of 2.5 over a curvature of 1 multiply the distance to the target by -1.5.
    optimum = run(key, quadratic, {"w": jnp.zeros(3)}, optax.sgd(2.5), steps=12, chunk=3)
    assert optimum.status == "finished"
    assert optimum.losses[-1] > 1000 * optimum.losses[0]
    np.testing.assert_allclose(optimum.parameters["w"], TARGET * (1 + 1.5**3), rtol=1e-5)
    np.testing.assert_allclose(optimum.halfway["w"], TARGET * (1 - 1.5**6), rtol=1e-5)
    np.testing.assert_allclose(optimum.last["w"], TARGET * (1 - 1.5**12), rtol=1e-5)


def test_what_is_no_float_array_is_handed_on_untouched(key):
    parameters = {"w": jnp.array(0.5), "columns": jnp.array([2, 0]), "name": "two columns"}
    given = {"target": jnp.asarray(TARGET), "power": 2, "function": jnp.abs}

    def loss(parameters, key, data):
        del key
        assert parameters["name"] == "two columns"
        return jnp.sum(data["function"](parameters["w"] - data["target"][parameters["columns"]]) ** data["power"])

    optimum = run(key, loss, parameters, optax.sgd(0.1), data=given, steps=100)
    assert optimum.parameters["name"] == "two columns"
    assert optimum.parameters["columns"].tolist() == [2, 0]
    assert float(optimum.parameters["w"]) == pytest.approx(TARGET[[2, 0]].mean(), abs=1e-5)


def test_one_key_gives_one_run_and_another_key_another(key, whole):
    again, other = run(key), run(jax.random.key(1))
    np.testing.assert_array_equal(whole.losses, again.losses)
    assert_same(whole.parameters, again.parameters)
    assert not np.array_equal(whole.losses, other.losses)


def test_an_interrupted_run_returns_what_it_has(key, monkeypatch, whole):
    interrupt_after(monkeypatch, chunks=2)
    stopped = run(key)
    assert stopped.status == "interrupted"
    np.testing.assert_array_equal(stopped.losses, whole.losses[:20])
    assert stopped.best_loss == pytest.approx(min(whole.losses[:10].mean(), whole.losses[10:20].mean()))


def test_an_interruption_before_the_first_chunk_returns_the_start(key, monkeypatch):
    interrupt_after(monkeypatch, chunks=0)
    optimum = run(key)
    assert (optimum.status, optimum.best_loss, optimum.losses.size) == ("interrupted", np.inf, 0)
    assert_same(optimum.parameters, start())


@pytest.mark.parametrize("chunks", [0, 2])
def test_an_interrupted_and_resumed_run_equals_one_that_was_not_bit_for_bit(key, monkeypatch, tmp_path, whole, chunks):
    with monkeypatch.context() as patch:
        interrupt_after(patch, chunks)
        assert run(key, checkpoint=tmp_path / "run.npz").status == "interrupted"
    resumed = run(key, checkpoint=tmp_path / "run.npz")
    assert resumed.status == "finished"
    assert resumed.best_loss == whole.best_loss
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    assert_same(resumed.parameters, whole.parameters)


def test_an_interruption_before_the_checkpoint_is_written_repeats_the_chunk(key, monkeypatch, tmp_path, whole):

    @contextmanager
    def interrupting_bar(*_):
        texts = []

        def advance(_, text):
            texts.append(text)
            if len(texts) == 3:  # once at the start, then once a chunk
                raise KeyboardInterrupt

        yield advance

    with monkeypatch.context() as patch:
        patch.setattr(loop, "progress_bar", interrupting_bar)
        stopped = run(key, checkpoint=tmp_path / "run.npz")
    assert (stopped.status, stopped.losses.size) == ("interrupted", 20)
    resumed = run(key, checkpoint=tmp_path / "run.npz")
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    assert_same(resumed.parameters, whole.parameters)


def test_a_finished_checkpoint_is_returned_without_compiling(key, monkeypatch, tmp_path):
    first = run(key, checkpoint=tmp_path / "run.npz")

    def refuse(*_, **__):
        raise RuntimeError("compiled")

    monkeypatch.setattr(loop, "compile_timed", refuse)
    again = run(key, checkpoint=tmp_path / "run.npz")
    assert (again.status, again.best_loss) == ("finished", first.best_loss)
    assert_same(again.parameters, first.parameters)


def test_a_checkpoint_of_other_work_is_refused_with_both_values(key, tmp_path):
    path = tmp_path / "run.npz"
    run(key, checkpoint=path)
    with pytest.raises(ValueError, match=r"belongs to other work.*'steps': \(25, 30\)"):
        run(key, steps=30, checkpoint=path)
    with pytest.raises(ValueError, match=r"'key': \(\[0, 0\], \[0, 1\]\)"):
        run(jax.random.key(1), checkpoint=path)
    with pytest.raises(ValueError, match=r"'data': \('[0-9a-f]{12}', '[0-9a-f]{12}'\)"):
        run(key, checkpoint=path, data={"target": jnp.asarray(TARGET) + 1e-6})
    with pytest.raises(ValueError, match=r"'loss': \(None, 'cubic'\)"):
        run(key, checkpoint=path, work={"loss": "cubic"})
    for other in ({"loss": lambda *given: noisy(*given) + 1e-3}, {"optimizer": optax.adam(0.06)}):
        with pytest.raises(ValueError, match="the same words compile to another program"):
            run(key, checkpoint=path, **other)


def test_a_diverging_loss_ends_the_run_and_the_parameters_are_from_before(key):
    def quartic(parameters, key, data):
        del key, data
        return jnp.sum(parameters["w"] ** 4)

    # w -> w - 4 w^3 from w = 1: 1, -3, 105, -4.6e6, 4e20, then the loss overflows.
    optimum = run(key, quartic, {"w": jnp.ones(1)}, optax.sgd(1.0), steps=100, chunk=2)
    assert optimum.status == "diverged"
    assert optimum.losses.size < 10
    assert not np.isfinite(optimum.losses[-2:]).all()
    assert optimum.parameters["w"].tolist() == [105.0]
    assert optimum.best_loss == (1 + 3**4) / 2


def test_a_gradient_that_is_not_finite_counts_as_divergence_although_the_loss_is_lowest_there(key):
    def distance(parameters, key, data):
        del key, data
        return jnp.sqrt(parameters["w"] ** 2)  # at zero the value is 0 and the gradient 0 / 0

    optimum = run(key, distance, {"w": jnp.array(1.0)}, optax.sgd(1.0), steps=2, chunk=1)
    assert optimum.losses.tolist() == [1.0, 0.0]
    assert optimum.status == "diverged"
    assert (float(optimum.parameters["w"]), optimum.best_loss) == (0.0, 1.0)


def test_a_loss_that_is_never_finite_returns_the_start(key):
    optimum = run(key, lambda p, key, data: jnp.sum(p["w"]) * jnp.nan, steps=5)  # noqa: ARG005
    assert (optimum.status, optimum.best_loss) == ("diverged", np.inf)
    assert_same(optimum.parameters, start())


def test_surplus_steps_of_the_last_chunk_cannot_make_a_run_diverge(key):
    def explodes_at_the_minimum(parameters, key, data):
        del key, data
        return jnp.sqrt(parameters["w"] ** 2)

    optimum = run(key, explodes_at_the_minimum, {"w": jnp.array(3.0)}, optax.sgd(1.0), steps=3, chunk=2)
    assert optimum.status == "finished"
    assert optimum.losses.tolist() == [3.0, 2.0, 1.0]
    assert float(optimum.parameters["w"]) == 0.0


def test_a_diverged_run_is_not_written_over_the_last_good_checkpoint(key, tmp_path):
    def distance(parameters, key, data):
        del key, data
        return jnp.sqrt(parameters["w"] ** 2)

    options = {"steps": 4, "chunk": 1, "checkpoint": tmp_path / "run.npz"}
    run(key, distance, {"w": jnp.array(2.0)}, optax.sgd(1.0), **options)
    with np.load(tmp_path / "run.npz") as archive:
        assert archive["leaf.step"] == 2
        assert archive["leaf.parameters['w']"] == 0.0


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"chunk": 0}])
def test_fewer_than_one_step_is_refused(key, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"must be at least 1; got .*{name}={value}"):
        run(key, **wrong)


def test_progress_shows_the_loss_and_silence_is_silent(key, capsys):
    run(key, name="a quadratic", show_progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "compiling a quadratic" in shown.err
    assert "25/25" in shown.err
    assert "loss" in shown.err
    run(key, show_progress=False)
    assert capsys.readouterr() == ("", "")
