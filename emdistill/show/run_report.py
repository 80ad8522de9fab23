"""The page of one run, report.html, from what stands in its folder and nothing else."""

from pathlib import Path

from emdistill.runs.distillation import read_distillation
from emdistill.show.page import Section, write_sections
from emdistill.show.sections import OF_TASKS, SECTIONS

REPORT = "report.html"


def write_run_report(folder: Path) -> Path:
    """Write RUN/report.html: the sections for which the run has recorded something.

    Equal folders (and label-only runs beside them) give equal bytes; runs of earlier versions are read too.
    Raises OutputError for a folder without a distillation or with a broken record, DataError for a broken line in it.
    """
    run, sections, path = read_distillation(folder), [], folder / REPORT
    for name, make in SECTIONS.items():
        for task, part in (run.of_tasks if run.of_tasks and name in OF_TASKS else {"": run}).items():
            if (section := make(part)) is not None:
                anchor, heading = (f"{name}-{task}", f"{task}: {section.heading}") if task else (name, section.heading)
                sections.append(Section(heading, section.parts, anchor))
    write_sections(path, f"{run.task.name if run.task else 'raw text'}: a {run.options.method} student", sections)
    return path
