"""The rank of known networks, by co-smoothing over hidden neurons and trials."""

from functools import partial

from cases import compile_once, measured
from recipe import TEACHERS, simulate_recipe

from connectinfer.diagnostics.rank_selection import select_rank

CLAIM = "rank_selection"
TARGET = "rank 2 selected among 1 to 4 in at least 9 of 10 fits, five seeds of each of the four teachers"

_QUICK = {"n_training": 40, "n_test": 20, "n_bins": 100, "n_held_in": 40, "n_held_out": 10}


def run(quick: bool) -> dict:
    """All teachers and seeds; `quick` one seed of two."""
    compile_once()
    seeds = range(1 if quick else 5)
    lines, found = [], {}
    for teacher in list(TEACHERS)[: 2 if quick else None]:
        rows = [
            _selected(teacher, seed, quick)
            if quick
            else measured(CLAIM, f"{teacher} {seed}", partial(_selected, teacher, seed, quick))
            for seed in seeds
        ]
        lines += [f"{teacher}, seed {seed}: {row['said']}" for seed, row in zip(seeds, rows, strict=True)]
        found[teacher] = sum(row["chosen"] == 2 for row in rows)
    value = "; ".join(f"{teacher} {right} of {len(seeds)}" for teacher, right in found.items())
    return {"value": value, "passed": sum(found.values()) >= 0.9 * len(seeds) * len(found), "details": "\n".join(lines)}


def _selected(teacher: str, seed: int, quick: bool) -> dict:
    recipe = simulate_recipe(teacher, seed, **(_QUICK if quick else {}))
    selection = select_rank(recipe.full, seed=seed, show_progress=False)
    chosen, best = int(selection.attrs["chosen"]), float(selection["score"].max())
    rows = zip(*(selection[name].values for name in ("rank", "difference", "difference_error")), strict=True)
    differences = ", ".join(f"{rank}: {lead:.5f} ± {error:.5f}" for rank, lead, error in rows)
    return {"chosen": chosen, "said": f"{chosen} of best {best:.4f} bits/spike; to the best {differences}"}
