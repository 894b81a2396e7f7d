"""The section of the run: ranks of the chains for the entries that agree least, or the bound that was optimised."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from connectinfer.plots.posterior import plot_bound, plot_ranks
from connectinfer.reporting.page import Missing, Picture, Section
from connectinfer.reporting.parameters import chosen_entries, judged
from connectinfer.reporting.pictures import FULL_WIDTH, empty_figure, picture

_MOST_RANKS = 6
_LEAST_DRAWS = 10


def convergence_section(result: xr.DataTree) -> Section:
    """Whether the chains agree, or the bound had stopped rising."""
    if "optimisation" in result.children and "loss" in result["optimisation"].data_vars:
        return Section("run", "The run", (_bound(result),))
    return Section("run", "The run", (_ranks(result),))


def _bound(result: xr.DataTree) -> Picture | Missing:
    loss = np.asarray(result["optimisation"]["loss"].values, float)
    if np.isfinite(loss).sum() < 2:
        return Missing("The loss of the optimisation is not finite, so no curve is shown.")
    figure = empty_figure(FULL_WIDTH, 2.7)
    plot_bound(xr.DataArray(-loss, dims="step"), figure=figure)
    return picture(
        figure,
        alt="The evidence lower bound over the steps of the optimisation; left all steps, right the second half.",
        caption=f"The evidence lower bound (ELBO) over {len(loss):,} steps. Left: all of them. Right: the second half; "
        "the verdict on convergence above judges how much it still rises.",
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
