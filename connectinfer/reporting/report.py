"""The door: `report` writes one HTML page from a result."""

from pathlib import Path

import xarray as xr

from connectinfer._typing import FilePath
from connectinfer.diagnostics.checks import diagnose
from connectinfer.diagnostics.verdict import Diagnosis
from connectinfer.optimisation.progress import timed
from connectinfer.reporting.activity import activity_section
from connectinfer.reporting.connections import connectivity_section
from connectinfer.reporting.convergence import convergence_section
from connectinfer.reporting.dynamics import flow_section, paths_section
from connectinfer.reporting.judgement import judgement_section, limits_section, outcome
from connectinfer.reporting.observed import Observed, observed_in, with_finite_draws
from connectinfer.reporting.page import Missing, Page, Section
from connectinfer.reporting.parameters import parameters_section
from connectinfer.reporting.pictures import report_look
from connectinfer.reporting.prediction import prediction_section
from connectinfer.reporting.provenance import mapping_in, model_title, provenance_section

_SUFFIXES = (".html", ".htm")
_ENGINES = {
    "state_space": "Gibbs sampling of paths and parameters (state_space)",
    "nuts": "NUTS",
    "svi": "variational inference (svi)",
    "flow_posterior": "neural posterior estimation (flow_posterior)",
}


def report(result: xr.DataTree, path: FilePath, *, overwrite: bool = False, show_progress: bool = True) -> Diagnosis:
    """Write one self-contained HTML page about a result, and return the diagnosis that it shows.

    Verdicts, the recording, latent paths, dynamics, the run, connectivity, parameters, provenance, and what the data
    cannot tell. A part for which the result lacks something is replaced by a sentence that says what. The page needs
    no network and no script; the same result gives the same page. Pictures and tables leave out draws that are not
    finite and say how many.

    Raises:
        ValueError: if the name does not end in .html, or the result has no `posterior` and `sample_stats`.
        FileExistsError: if the file exists and `overwrite` is False.
        FileNotFoundError: if its folder does not exist.
    """
    file = Path(path)
    _check_place(file, overwrite)
    with timed("writing the report", show_progress):
        diagnosis = diagnose(result)
        html = _page(result, diagnosis).to_html()
        # Written beside and moved, so that an interruption leaves nothing half-written under the name.
        part = file.with_name(f"{file.stem}.part{file.suffix}")
        try:
            part.write_text(html, encoding="utf-8", newline="\n")
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
    return diagnosis


def _check_place(file: Path, overwrite: bool) -> None:
    if file.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"A report is an HTML page; its name must end in .html, got {file.name!r}.")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"The folder {file.parent} of the report does not exist; create it first.")
    if file.exists() and not overwrite:
        raise FileExistsError(f"{file} exists. Choose another name, or pass `overwrite=True` to replace it.")


def _page(result: xr.DataTree, diagnosis: Diagnosis) -> Page:
    sound, n_left_out = with_finite_draws(result)
    observed = observed_in(result)
    sections = [judgement_section(diagnosis), limits_section(sound, diagnosis, observed)]
    with report_look():
        sections.append(activity_section(sound, observed))
        if sound["posterior"].sizes["draw"]:
            sections += [paths_section(sound), flow_section(sound), prediction_section(sound, observed)]
            sections += [connectivity_section(sound), convergence_section(sound), parameters_section(sound)]
        else:
            none = Missing("No draw of the posterior is finite, so there is nothing to show.")
            sections.append(Section("posterior", "Posterior", (none,)))
    sections.append(provenance_section(result))
    return Page(
        title=model_title(str(result.attrs.get("model", "A result"))),
        summary=diagnosis.headline,
        outcome=outcome(diagnosis),
        facts=_facts(result, observed, n_left_out),
        sections=sections,
    )


def _facts(result: xr.DataTree, observed: Observed | None, n_left_out: int) -> tuple[tuple[str, str], ...]:
    sizes, attrs = result["posterior"].sizes, result.attrs
    draws = f"{sizes['chain'] * sizes['draw']:,} draws" + (f", {sizes['chain']} chains" if sizes["chain"] > 1 else "")
    if n_left_out:
        draws += f"; {n_left_out} of {sizes['draw']} left out below, being not finite in a chain"
    facts = {
        "Model": str(attrs.get("model", "not recorded")),
        "Engine": _ENGINES.get(str(attrs.get("engine")), str(attrs.get("engine", "not recorded"))),
        "Posterior": draws,
        "Data": "no recording in the result" if observed is None else observed.words,
    }
    if attrs.get("status", "finished") != "finished":
        facts["Run"] = str(attrs["status"])
    versions = mapping_in(attrs.get("versions", "{}"))
    if "connectinfer" in versions:
        facts["Made with"] = f"connectinfer {versions['connectinfer']}"
    return tuple(facts.items())
