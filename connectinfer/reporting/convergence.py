"""The section of the run: ranks of the chains that agree least, the bound, or how well a flow came to predict."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from jaxtyping import Float

from connectinfer.plots.posterior import plot_bound, plot_ranks
from connectinfer.reporting.page import Missing, Picture, Section
from connectinfer.reporting.parameters import chosen_entries, judged
from connectinfer.reporting.pictures import FULL_WIDTH, empty_axes, empty_figure, picture

_MOST_RANKS = 6
_LEAST_DRAWS = 10


def convergence_section(result: xr.DataTree) -> Section:
    """Whether the chains agree, the bound had stopped rising, or a flow learned what carries over to new data."""
    if "optimisation" in result.children and "loss" in result["optimisation"].data_vars:
        return Section("run", "The run", (_optimisation(result),))
    return Section("run", "The run", (_ranks(result),))


def _optimisation(result: xr.DataTree) -> Picture | Missing:
    found = result["optimisation"].to_dataset()
    loss = np.asarray(found["loss"].values, float)
    if np.isfinite(loss).sum() < 2:
        return Missing("The loss of the optimisation is not finite, so no curve is shown.")
    if result.attrs.get("engine") == "flow_posterior":
        return _training(loss, np.asarray(found["validation"].values, float) if "validation" in found else None)
    return _bound(loss)


def _bound(loss: Float[np.ndarray, " step"]) -> Picture:
    figure = empty_figure(FULL_WIDTH, 2.7)
    plot_bound(xr.DataArray(-loss, dims="step"), figure=figure)
    return picture(
        figure,
        alt="The evidence lower bound over the steps of the optimisation; left all steps, right the second half.",
        caption=f"The evidence lower bound (ELBO) over {len(loss):,} steps. Left: all of them. Right: the second half; "
        "the verdict on convergence above judges how much it still rises.",
    )


def _training(loss: Float[np.ndarray, " step"], validation: Float[np.ndarray, " chunk"] | None) -> Picture:
    figure, ax = empty_axes(FULL_WIDTH, 2.7)
    ax.plot(np.arange(1, len(loss) + 1), loss, lw=0.8, alpha=0.6, label="simulations that train it")
    said = ""
    if validation is not None and validation.size:
        # Every chunk of steps has its value at its end.
        at = np.linspace(len(loss) / len(validation), len(loss), len(validation))
        ax.plot(at, validation, lw=1.5, label="simulations held out")
        ax.legend(frameon=False)
        said = " Where the curve of the held-out ones rises again, the flow learns the others by heart; the state that "
        said += "is kept is that where it is lowest."
    ax.spines[["top", "right"]].set_visible(False)
    ax.set(xlabel="step", ylabel="negative log density (nats)")
    return picture(
        figure,
        alt="The loss of the flow over the steps of its training.",
        caption="Negative log density of the true parameters under the flow, averaged over simulations, in "
        f"{len(loss):,} steps of the last round. It says how well the flow is trained, not how well the model fits the "
        f"data.{said}",
    )


def _ranks(result: xr.DataTree) -> Picture | Missing:
    posterior = result["posterior"].to_dataset()
    if posterior.sizes["chain"] < 2 or posterior.sizes["draw"] < _LEAST_DRAWS:
        return Missing(
            f"Chains are compared by the ranks of their draws; with {posterior.sizes['chain']} chain(s) of "
            f"{posterior.sizes['draw']} draws there is nothing to compare."
        )
    entries = chosen_entries(posterior)
    rhat = judged(entries)["rhat"]
    telling = rhat.where(np.isfinite(rhat), drop=True)
    telling = telling.sortby(telling, ascending=False).isel(entry=slice(_MOST_RANKS))
    if not telling.sizes["entry"]:
        return Missing("No entry of the posterior varies, so chains cannot be compared.")
    names = [str(name) for name in telling["entry"].values]
    columns = {name: (("chain", "draw"), entries.sel(entry=name).values) for name in names}
    coords = {dim: np.arange(posterior.sizes[dim]) for dim in ("chain", "draw")}
    figure = plot_ranks(xr.DataTree.from_dict({"posterior": xr.Dataset(columns, coords)}), names)
    figure.set_size_inches(FULL_WIDTH, 0.5 + 2.0 * -(-len(names) // 3))
    shown = picture(
        figure,
        alt="Ranks of each chain's draws for the entries with the largest R-hat.",
        caption=f"Ranks of each chain's draws among those of all chains, for the {len(names)} entries with the largest "
        "R-hat. Chains that sample the same distribution stay within the grey envelope.",
    )
    # ArviZ made it through pyplot, which would keep it.
    plt.close(figure)
    return shown
