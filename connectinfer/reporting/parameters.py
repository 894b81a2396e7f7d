"""The table of parameters: mean, sd, 90 % interval, and whether chains agree on them."""

import numpy as np
import xarray as xr

from connectinfer.reporting.page import Missing, Section, Table, Text

# Larger sites get one row, and are judged by this many evenly chosen entries.
_MOST_LISTED = 12
_MOST_JUDGED = 30
_MOST_SUMMARISED = 2000
_MOST_ROWS = 60
_SAMPLE_DIMS = ("chain", "draw")


def parameters_section(result: xr.DataTree) -> Section:
    """Entry by entry for small sites, one row with ranges for large ones."""
    posterior = _numbers(result["posterior"].to_dataset())
    if not posterior.data_vars or not posterior.sizes["draw"]:
        return Section("parameters", "Parameters", (Missing("The posterior holds no finite draws of numbers."),))
    stats = result["sample_stats"].data_vars if "sample_stats" in result.children else ()
    chains = "diverging" in stats or "failed_updates" in stats
    rows = [row for name in posterior.data_vars for row in _rows(posterior[[name]], chains)]
    said = (
        f"Sites with more than {_MOST_LISTED} entries have one row: the range of means, sds and intervals over "
        f"(up to {_MOST_SUMMARISED:,}) entries, with the worst R-hat and the fewest effective draws of up to "
        f"{_MOST_JUDGED} evenly chosen ones."
    )
    if not chains:
        source = "a trained flow" if result.attrs.get("engine") == "flow_posterior" else "a variational approximation"
        said += f" Draws of {source} are independent: R-hat and effective sample size do not apply."
    caption = "Posterior of every site. Intervals hold 90 % with equal tails; ESS is the smaller of bulk and tail."
    columns = ("parameter", "mean", "sd", "90 % interval", "R-hat", "ESS")
    shown = Table(caption, "lrrrrr", columns, tuple(rows[:_MOST_ROWS]))
    left = [Text(f"{len(rows) - _MOST_ROWS} further rows are not shown.")] if len(rows) > _MOST_ROWS else []
    return Section("parameters", "Parameters", (shown, *left, Text(said)))


def chosen_entries(posterior: xr.Dataset) -> xr.DataArray:
    """Evenly chosen entries of every numeric site, `(chain, draw, entry)`, named as in "overlap[0, 1]"."""
    parts = [_entries(site, _MOST_JUDGED) for site in _numbers(posterior).data_vars.values()]
    return xr.concat(parts, "entry")


def judged(entries: xr.DataArray) -> xr.Dataset:
    """`rhat` and `ess` (the smaller of bulk and tail) of `entries (chain, draw, entry)`; NaN where they do not vary."""
    from arviz_stats.sampling_diagnostics import ess, rhat

    dataset = entries.to_dataset(name="x")
    # Zero variance within every chain gives no R-hat, with a warning.
    with np.errstate(divide="ignore", invalid="ignore"):
        bulk, tail = (ess(dataset, sample_dims=list(_SAMPLE_DIMS), method=method)["x"] for method in ("bulk", "tail"))
        agreement = rhat(dataset, sample_dims=list(_SAMPLE_DIMS))["x"]
    if entries.sizes["chain"] < 2:
        agreement = agreement * np.nan
    return xr.Dataset({"rhat": agreement, "ess": np.minimum(bulk, tail)})


def _numbers(posterior: xr.Dataset) -> xr.Dataset:
    kept = [n for n, x in posterior.data_vars.items() if x.dtype.kind in "biuf" and set(_SAMPLE_DIMS) <= set(x.dims)]
    return posterior[[name for name in kept if name != "gauge" and posterior[name].size]]


def _entries(site: xr.DataArray, most: int) -> xr.DataArray:
    dims = [dim for dim in site.dims if dim not in _SAMPLE_DIMS]
    site = site.transpose(*_SAMPLE_DIMS, *dims)
    flat = site.values.reshape(*site.shape[:2], -1)
    chosen = np.unique(np.linspace(0, flat.shape[2] - 1, most).astype(int))
    labels = [site[dim].values for dim in dims]
    names = []
    for position in chosen:
        at = np.unravel_index(position, site.shape[2:])
        place = ", ".join(str(label[i]) for label, i in zip(labels, at, strict=True))
        names.append(f"{site.name}[{place}]" if dims else str(site.name))
    return xr.DataArray(flat[..., chosen].astype(float), {"entry": names}, (*_SAMPLE_DIMS, "entry"))


def _rows(site: xr.Dataset, chains: bool) -> list[tuple[str, ...]]:
    (values,) = site.data_vars.values()
    dims = [dim for dim in values.dims if dim not in _SAMPLE_DIMS]
    n_entries = int(np.prod([values.sizes[dim] for dim in dims]))
    entries = _entries(values, max(n_entries, 1) if n_entries <= _MOST_LISTED else _MOST_JUDGED)
    checks = judged(entries) if chains else None
    draws = _entries(values, _MOST_SUMMARISED).values.reshape(-1, min(n_entries, _MOST_SUMMARISED))
    mean, sd = draws.mean(0), draws.std(0)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    if n_entries > _MOST_LISTED:
        name = f"{values.name} ({' × '.join(f'{values.sizes[dim]} {dim}' for dim in dims)})"
        quality = ("–", "–") if checks is None else _quality(checks["rhat"].max(), checks["ess"].min())
        return [(name, _range(mean), _range(sd), f"{_short(low.min())} to {_short(high.max())}", *quality)]
    rows = []
    for i, name in enumerate(entries["entry"].values):
        quality = ("–", "–") if checks is None else _quality(checks["rhat"][i], checks["ess"][i])
        rows.append((str(name), _short(mean[i]), _short(sd[i]), f"{_short(low[i])} to {_short(high[i])}", *quality))
    return rows


def _quality(rhat: xr.DataArray, ess: xr.DataArray) -> tuple[str, str]:
    agreement, effective = float(rhat), float(ess)
    return (
        f"{agreement:.3f}" if np.isfinite(agreement) else "–",
        f"{effective:,.0f}" if np.isfinite(effective) else "–",
    )


def _range(values: np.ndarray) -> str:
    return f"{_short(values.min())} … {_short(values.max())}"


def _short(value: float) -> str:
    return f"{value:.3g}"
