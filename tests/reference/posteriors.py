"""Models of posteriordb with reference draws by Stan, as NumPyro models whose sites carry the reference's names.

A model takes entries of the reference's data file by their names there. The formulas are those of
`shared/data/README.md`, "Models of the reference posteriors"; flat priors are improper, as there. The two
differential equations are solved by diffrax with tolerance 1e-6 instead of by Stan's solvers.

Source: Magnusson et al., posteriordb (2024), https://github.com/stan-dev/posteriordb.
"""

import inspect
import json
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import arviz_stats
import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jax.scipy.special import logsumexp
from numpyro.distributions import constraints
from shared_data import SHARED_DATA

from connectinfer.inference.nuts import sample_nuts

FOLDER = SHARED_DATA / "reference" / "posteriordb"


def eight_schools(y, sigma):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(y)):
        theta_trans = numpyro.sample("theta_trans", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * theta_trans)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def lotka_volterra(y_init, y, ts):
    positive = dist.TruncatedNormal(jnp.array([1.0, 0.05, 1.0, 0.05]), jnp.array([0.5, 0.05, 0.5, 0.05]), low=0.0)
    theta = numpyro.sample("theta", positive.to_event(1))
    z_init = numpyro.sample("z_init", dist.LogNormal(jnp.log(10.0), 1.0).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.LogNormal(-1.0, 1.0).expand([2]).to_event(1))

    # The logarithms of hares and lynxes are solved for: they cannot become negative.
    def growth(_t, log_z, theta):
        u, v = jnp.exp(log_z)
        return jnp.stack([theta[0] - theta[1] * v, -theta[2] + theta[3] * u])

    log_z = _solve(growth, jnp.log(z_init), ts, theta)
    with numpyro.plate("species", 2, dim=-1):
        numpyro.sample("y_init", dist.LogNormal(jnp.log(z_init), sigma), obs=y_init)
        with numpyro.plate("year", len(ts), dim=-2):
            numpyro.sample("y", dist.LogNormal(log_z, sigma), obs=y)


def one_comp_mm_elim_abs(t0, D, V, times, C_hat):
    k_a, K_m, V_m, sigma = (numpyro.sample(name, dist.HalfCauchy(1.0)) for name in ("k_a", "K_m", "V_m", "sigma"))

    def absorption_minus_elimination(t, C, _):
        return jnp.exp(-k_a * t) * D * k_a / V - V_m / V * C / (K_m + C)

    C = _solve(absorption_minus_elimination, jnp.zeros(()), times - t0, None)
    # Where elimination is fast, the solver may step below zero by its tolerance.
    with numpyro.plate("sample", len(times)):
        numpyro.sample("C_hat", dist.LogNormal(jnp.log(jnp.maximum(C, 1e-6)), sigma), obs=C_hat)


def _solve(field, initial, times, args):
    """The solution of `dz/dt = field(t, z, args)` from time 0 at `times`; a failed solve rejects the draw."""
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Tsit5(),
        t0=0.0,
        t1=times[-1],
        dt0=None,
        y0=initial,
        args=args,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
        max_steps=1000,
        throw=False,
    )
    failed = (solution.result != diffrax.RESULTS.successful) | ~jnp.isfinite(solution.ys).all()
    numpyro.deterministic("failed_solves", failed)
    numpyro.factor("solved", jnp.where(failed, -jnp.inf, 0.0))
    return jnp.where(failed, 1.0, solution.ys)


def hmm_example(y):
    log_transition = jnp.log(
        jnp.stack([numpyro.sample(name, dist.Dirichlet(jnp.ones(2))) for name in ("theta1", "theta2")])
    )
    mu = numpyro.sample("mu", _flat(constraints.positive_ordered_vector, 2))
    numpyro.factor("mu_prior", dist.Normal(jnp.array([3.0, 10.0]), 1.0).log_prob(mu).sum())
    emission = dist.Normal(mu, 1.0).log_prob(y[:, None])

    def forward(log_state, log_emission):
        return logsumexp(log_state[:, None] + log_transition, axis=0) + log_emission, None

    numpyro.factor("forward", logsumexp(jax.lax.scan(forward, emission[0], emission[1:])[0]))


def low_dim_gauss_mix(y):
    mu = numpyro.sample("mu", _flat(constraints.ordered_vector, 2))
    numpyro.factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu).sum())
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = numpyro.sample("theta", dist.Beta(5.0, 5.0))
    component = dist.Categorical(probs=jnp.stack([theta, 1.0 - theta]))
    with numpyro.plate("observation", len(y)):
        numpyro.sample("y", dist.MixtureSameFamily(component, dist.Normal(mu, sigma)), obs=y)


def _flat(support, *shape):
    return dist.ImproperUniform(support, (), shape)


def ar(K, y):
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([K]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    lags = jnp.stack([y[K - k : -k] for k in range(1, K + 1)], axis=-1)
    with numpyro.plate("observation", len(y) - K):
        numpyro.sample("y", dist.Normal(alpha + lags @ beta, sigma), obs=y[K:])


def arma11(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    phi = numpyro.sample("phi", dist.Normal(0.0, 2.0))
    theta = numpyro.sample("theta", dist.Normal(0.0, 2.0))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))

    def predict(error, pair):
        previous, current = pair
        nu = mu + phi * previous + theta * error
        return current - nu, nu

    first = mu + phi * mu
    _, later = jax.lax.scan(predict, y[0] - first, (y[:-1], y[1:]))
    nu = jnp.concatenate([first[None], later])
    with numpyro.plate("observation", len(y)):
        numpyro.sample("y", dist.Normal(nu, sigma), obs=y)


def garch11(y, sigma1):
    mu = numpyro.sample("mu", _flat(constraints.real))
    alpha0 = numpyro.sample("alpha0", _flat(constraints.positive))
    alpha1 = numpyro.sample("alpha1", _flat(constraints.unit_interval))
    beta1 = numpyro.sample("beta1", _flat(constraints.interval(0.0, 1.0 - alpha1)))

    def next_variance(variance, y_t):
        variance = alpha0 + alpha1 * (y_t - mu) ** 2 + beta1 * variance
        return variance, variance

    first = jnp.asarray(sigma1, y.dtype) ** 2
    _, later = jax.lax.scan(next_variance, first, y[:-1])
    sigma = jnp.sqrt(jnp.concatenate([first[None], later]))
    with numpyro.plate("observation", len(y)):
        numpyro.sample("y", dist.Normal(mu, sigma), obs=y)


def gp_pois_regr(x, k):
    rho = numpyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = numpyro.sample("alpha", dist.HalfNormal(2.0))
    distance = (x[:, None] - x[None, :]) / rho
    covariance = alpha**2 * jnp.exp(-0.5 * distance**2) + 1e-10 * jnp.eye(len(x))
    white = numpyro.sample("f_white", dist.Normal(0.0, 1.0).expand([len(x)]).to_event(1))
    f = numpyro.deterministic("f", jnp.linalg.cholesky(covariance) @ white)
    with numpyro.plate("observation", len(k)):
        numpyro.sample("k", dist.Poisson(jnp.exp(f)), obs=k)


def bayesian_linear_regression(X, y):
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([X.shape[1]]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(10.0))
    with numpyro.plate("observation", len(y)):
        numpyro.sample("y", dist.Normal(X @ beta, sigma), obs=y)


def logearn_interaction(earn, height, male):
    beta = numpyro.sample("beta", _flat(constraints.real, 4))
    sigma = numpyro.sample("sigma", _flat(constraints.positive))
    loc = beta[0] + beta[1] * height + beta[2] * male + beta[3] * height * male
    with numpyro.plate("observation", len(earn)):
        numpyro.sample("log_earn", dist.Normal(loc, sigma), obs=jnp.log(earn))


def kilpisjarvi(x, y, pmualpha, psalpha, pmubeta, psbeta):
    alpha = numpyro.sample("alpha", dist.Normal(pmualpha, psalpha))
    beta = numpyro.sample("beta", dist.Normal(pmubeta, psbeta))
    sigma = numpyro.sample("sigma", _flat(constraints.positive))
    with numpyro.plate("observation", len(y)):
        numpyro.sample("y", dist.Normal(alpha + beta * x, sigma), obs=y)


class ReferencePosterior(NamedTuple):
    """A model, the name of its data, and what its geometry needs beside the sampler settings of the reference.

    `float64` is for what single precision cannot resolve: the solver's tolerance, a jitter of 1e-10. A covariance with
    entries below 1e-5 needs a mass matrix that is not `regularized` towards 1e-3. Parameters `in_logarithm` are
    compared on that scale, because their variance is infinite.
    """

    model: Callable
    data: str
    float64: bool = False
    dense_mass: bool = False
    regularized: bool = True
    in_logarithm: tuple[str, ...] = ()


POSTERIORS = {
    "eight_schools-eight_schools_noncentered": ReferencePosterior(eight_schools, "eight_schools"),
    "hudson_lynx_hare-lotka_volterra": ReferencePosterior(
        lotka_volterra, "hudson_lynx_hare", float64=True, dense_mass=True
    ),
    # Far out, only V_m / K_m is identified; the two half-Cauchy priors then leave K_m and V_m densities that fall with
    # the third power. (Hill's estimate of the reference's tail exponent for K_m, 100 largest draws: 1.9.)
    "one_comp_mm_elim_abs-one_comp_mm_elim_abs": ReferencePosterior(
        one_comp_mm_elim_abs, "one_comp_mm_elim_abs", float64=True, dense_mass=True, in_logarithm=("K_m", "V_m")
    ),
    "hmm_example-hmm_example": ReferencePosterior(hmm_example, "hmm_example"),
    "low_dim_gauss_mix-low_dim_gauss_mix": ReferencePosterior(low_dim_gauss_mix, "low_dim_gauss_mix"),
    "arK-arK": ReferencePosterior(ar, "arK", dense_mass=True),
    "arma-arma11": ReferencePosterior(arma11, "arma"),
    "garch-garch11": ReferencePosterior(garch11, "garch"),
    "gp_pois_regr-gp_pois_regr": ReferencePosterior(gp_pois_regr, "gp_pois_regr", float64=True, dense_mass=True),
    "sblrc-blr": ReferencePosterior(bayesian_linear_regression, "sblrc", dense_mass=True, regularized=False),
    "earnings-logearn_interaction": ReferencePosterior(
        logearn_interaction, "earnings", dense_mass=True, regularized=False
    ),
    "kilpisjarvi_mod-kilpisjarvi": ReferencePosterior(
        kilpisjarvi, "kilpisjarvi_mod", dense_mass=True, regularized=False
    ),
}

QUICK = ("eight_schools-eight_schools_noncentered", "sblrc-blr")
"""The posteriors that take less than 20 s."""


def sample_posterior(name: str, *, seed: int = 0) -> xr.DataTree:
    """Four chains of 2,000 draws, after 1,000 of warm-up, with the target acceptance of the reference's `info.json`.

    Of heavy-tailed parameters the standard error of an sd is itself uncertain: with 1,000 draws a chain, seven seeds of
    eight schools differed 1.5 times more than their standard errors say. The reference ran ten chains of 10,000,
    thinned by ten. Its tree depths above 10 (up to 20) are only ever reached before the mass matrix is adapted, where
    they cost minutes.
    """
    posterior = POSTERIORS[name]
    arguments = json.loads((FOLDER / f"{name}.info.json").read_text())["inference"]["method_arguments"]
    with jax.enable_x64(posterior.float64):
        return sample_nuts(
            jax.random.key(seed),
            posterior.model,
            inputs_of(posterior),
            warmup=1000,
            draws=2000,
            target_accept_prob=arguments["control"]["adapt_delta"],
            dense_mass=posterior.dense_mass,
            regularize_mass_matrix=posterior.regularized,
            show_progress=False,
        )


class Agreement(NamedTuple):
    """Differences of mean and sd by parameter, in combined Monte Carlo standard errors; largest R-hat, smallest
    effective sample size."""

    mean: dict[str, float]
    sd: dict[str, float]
    rhat: float
    ess: float

    @property
    def worst_mean(self) -> float:
        return max(map(abs, self.mean.values()))

    @property
    def worst_sd(self) -> float:
        return max(map(abs, self.sd.values()))

    @property
    def passed(self) -> bool:
        """All within 4 errors, by chains that mixed: without mixing, the errors mean nothing."""
        return max(self.worst_mean, self.worst_sd) <= 4 and self.rhat <= 1.01 and self.ess >= 400


def agreement(name: str, result: xr.DataTree) -> Agreement:
    """Compares a result with the reference draws of all parameters."""
    chains = _read_zip(f"{name}.json")
    expected = {parameter: np.array([chain[parameter] for chain in chains]) for parameter in chains[0]}
    draws = {parameter: _draws(result, parameter) for parameter in expected}
    for parameter in POSTERIORS[name].in_logarithm:
        draws[parameter], expected[parameter] = np.log(draws[parameter]), np.log(expected[parameter])
    return compare(draws, expected)


def compare(draws: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> Agreement:
    """Compares draws `(chain, draw)` by parameter with others, which need not be as many."""

    def standardised(statistic: Callable, method: str) -> dict[str, float]:
        return {
            name: float(
                (statistic(draws[name]) - statistic(x))
                / np.hypot(arviz_stats.mcse(draws[name], method=method), arviz_stats.mcse(x, method=method))
            )
            for name, x in expected.items()
        }

    return Agreement(
        mean=standardised(np.mean, "mean"),
        sd=standardised(np.std, "sd"),
        rhat=max(float(arviz_stats.rhat(x)) for x in draws.values()),
        ess=min(float(arviz_stats.ess(x)) for x in draws.values()),
    )


def _draws(result: xr.DataTree, parameter: str) -> np.ndarray:
    """Draws under the reference's names, where `theta[2]` is the second entry of `theta`."""
    name, _, index = parameter.rstrip("]").partition("[")
    values = np.asarray(result["posterior"][name], float)
    return values[..., int(index) - 1] if index else values


def inputs_of(posterior: ReferencePosterior) -> dict[str, Any]:
    """The model's arguments, from the reference's data file."""
    data = _read_zip(f"{posterior.data}.data.json", member=f"{posterior.data}.json")
    taken = {name: data[name] for name in inspect.signature(posterior.model).parameters}
    return {name: np.asarray(value) if isinstance(value, list) else value for name, value in taken.items()}


def _read_zip(name: str, member: str | None = None) -> Any:
    with zipfile.ZipFile(FOLDER / f"{name}.zip") as archive:
        return json.loads(archive.read(member or name))
