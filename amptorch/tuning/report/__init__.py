"""The report of a study: report.html, report.md with its figures, and results.zip."""

from amptorch.tuning.report.page import write_report

__all__ = ["write_report"]
