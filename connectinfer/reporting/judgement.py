"""The section of verdicts: what was checked, and what the data cannot tell."""

import json

import xarray as xr

from connectinfer.diagnostics.verdict import FAIL, NOT_CERTIFIED, PASS, Diagnosis
from connectinfer.reporting.observed import Observed, percent
from connectinfer.reporting.page import Judgement, Points, Section, Text


def judgement_section(diagnosis: Diagnosis) -> Section:
    """The table of verdicts."""
    read = (
        "“Pass”: the number is on the good side of its threshold. “Fail”: something is known to be wrong. “Not "
        "certified”: nothing is known to be wrong, and nothing is proven."
    )
    return Section("verdicts", "Can this fit be trusted?", (Judgement(diagnosis), Text(read)))


def limits_section(result: xr.DataTree, diagnosis: Diagnosis, observed: Observed | None) -> Section:
    """What neither the data nor this fit can tell, in sentences."""
    said = [*_limits_of_the_fit(result, diagnosis), *_limits_of_the_data(result, observed)]
    return Section("limits", "What this cannot tell", (Points(tuple(said)),))


def outcome(diagnosis: Diagnosis) -> str:
    """ "fail" if a check failed, "open" if one is not certified, otherwise "pass"."""
    found = {verdict.verdict for verdict in diagnosis.verdicts}
    return "fail" if FAIL in found else "open" if NOT_CERTIFIED in found else "pass"


def _limits_of_the_fit(result: xr.DataTree, diagnosis: Diagnosis) -> list[str]:
    concerns = {each: [v.concern for v in diagnosis.verdicts if v.verdict == each] for each in (FAIL, NOT_CERTIFIED)}
    said = []
    if concerns[FAIL]:
        said.append(
            f"Failed: {', '.join(concerns[FAIL])}. Until that is repaired, read the pictures below as a description of "
            "this run, not of the circuit."
        )
    if concerns[NOT_CERTIFIED]:
        said.append(f"Neither shown to be right nor to be wrong: {', '.join(concerns[NOT_CERTIFIED])}.")
    if result.attrs.get("engine") == "svi":
        said.append(
            "All intervals are those of a variational approximation, which are usually too narrow. Take them as the "
            "least that is not known; a sampler (engine='state_space' or 'nuts') gives intervals to compare with."
        )
    if result.attrs.get("engine") == "flow_posterior":
        said.append(
            "All intervals are those of a flow that has seen simulations of the model, and no others. They are as good "
            "as its training, and mean little where the data are unlike the simulations; `connectinfer.calibrate` says "
            "how often they hold the truth."
        )
    if not any(v.concern.startswith("prediction") and v.verdict == PASS for v in diagnosis.verdicts):
        said.append("Nothing here shows that the model produces data like the recording.")
    return said


def _limits_of_the_data(result: xr.DataTree, observed: Observed | None) -> list[str]:
    posterior, said = (
        result["posterior"],
        [limit["said"] for limit in json.loads(result.attrs.get("limits", "{}")).values()],
    )
    if {"m", "n"} <= set(posterior.data_vars):
        said.append(
            "The data determine connectivity only through the dynamics that it makes where neural activity has been. "
            "What weights do beyond that follows the prior: a single weight with a narrow interval is required by this "
            "model together with the data, not by the data alone."
        )
    if "drift" in result.children:
        said.append("Fixed points and flow far from visited states are extrapolations of the model's functional form.")
    if {"m", "n"} <= set(posterior.data_vars) or any(
        {"post", "pre"} <= set(x.dims) for x in posterior.data_vars.values()
    ):
        said.append(
            "Neurons that were not recorded are not in the model. Their influence appears as weights among recorded "
            "neurons or as noise, so a weight is not evidence of a synapse."
        )
    if observed is not None and not (seen := observed.data["mask"].values).all():
        hidden = int((~seen).sum())
        said.append(
            f"{hidden:,} of {seen.size:,} entries ({percent(hidden / seen.size)}) were hidden from the fit or not "
            "recorded; what is shown there is prediction."
        )
    return said
