"""Verdicts in plain words, each with its number, its threshold and what to do next."""

from dataclasses import dataclass

import pandas as pd

PASS, FAIL, NOT_CERTIFIED = "pass", "fail", "not certified"


@dataclass(frozen=True)
class Verdict:
    """One concern: `verdict` is "pass", "fail" or "not certified" (nothing is known to be wrong, nothing is proven)."""

    concern: str
    verdict: str
    value: float
    threshold: str
    explanation: str


@dataclass(frozen=True)
class Diagnosis:
    """Verdicts on a result. `passed` says that nothing failed; what is not certified is not counted as failed."""

    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether no concern failed."""
        return all(verdict.verdict != FAIL for verdict in self.verdicts)

    @property
    def table(self) -> pd.DataFrame:
        """One row per concern."""
        return pd.DataFrame([vars(verdict) for verdict in self.verdicts])

    def to_markdown(self) -> str:
        """The headline and the table in Markdown."""
        rows = ["| concern | verdict | value | threshold | what it means |", "| --- | --- | --- | --- | --- |"]
        for v in self.verdicts:
            rows.append(f"| {v.concern} | **{v.verdict}** | {v.value:.4g} | {v.threshold} | {v.explanation} |")
        return f"{self.headline}\n\n" + "\n".join(rows)

    def __str__(self) -> str:
        lines = [self.headline, ""]
        for v in self.verdicts:
            lines.append(f"{v.verdict.upper():>13}  {v.concern}: {v.value:.4g} ({v.threshold}). {v.explanation}")
        return "\n".join(lines)

    @property
    def headline(self) -> str:
        """The outcome in one sentence."""
        failed = [v.concern for v in self.verdicts if v.verdict == FAIL]
        open_ = [v.concern for v in self.verdicts if v.verdict == NOT_CERTIFIED]
        if failed:
            return f"Do not use this fit yet: {', '.join(failed)} failed."
        if open_:
            return f"Nothing failed; not certified: {', '.join(open_)}."
        return "All checks passed."
