"""The rank of known networks, by co-smoothing over hidden neurons and trials."""

from recipe import simulate_recipe

from connectinfer.diagnostics.rank_selection import select_rank

CLAIM = "rank_selection"
TARGET = "rank 2 selected among 1 to 4 for at least 9 of 10 seeds of both teachers (limit cycle, bistable)"

_QUICK = {"n_training": 40, "n_test": 20, "n_bins": 100, "n_held_in": 40, "n_held_out": 10}


def run(quick: bool) -> dict:
    """Selects the rank for both teachers and all seeds."""
    seeds = range(1 if quick else 10)
    lines, found = [], {}
    for teacher in ("limit cycle", "bistable"):
        chosen = []
        for seed in seeds:
            recipe = simulate_recipe(teacher, seed, **(_QUICK if quick else {}))
            selection = select_rank(recipe.full, seed=seed, show_progress=False)
            chosen.append(selection.attrs["chosen"])
            rows = zip(*(selection[name].values for name in ("rank", "difference", "difference_error")), strict=True)
            differences = ", ".join(f"{rank}: {lead:.5f} ± {error:.5f}" for rank, lead, error in rows)
            best = float(selection["score"].max())
            lines.append(
                f"{teacher}, seed {seed}: {chosen[-1]} of best {best:.4f} bits/spike; to the best {differences}"
            )
        found[teacher] = sum(rank == 2 for rank in chosen)
    value = "; ".join(f"{teacher} {right} of {len(seeds)}" for teacher, right in found.items())
    return {"value": value, "passed": min(found.values()) >= 0.9 * len(seeds), "details": "\n".join(lines)}
